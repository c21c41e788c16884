"""Marks move a query by Rocchio's formula, also after descriptors were moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dolglab.library.contents import Photo
from dolglab.library.library import Library
from dolglab.library.search_engine import rocchio, search_with_feedback
from photo_library.made import identity

IDENTITY = identity(4)


def unit(*rows: list[float]) -> np.ndarray:
    table = np.array(rows, np.float32)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def test_the_query_moves() -> None:
    query, right, wrong = unit([1, 0, 0, 0])[0], unit([0, 1, 0, 0], [0, 0, 1, 0]), unit([0, 0, 0, 1])
    expected = np.array([1, 0.375, 0.375, -0.15])
    np.testing.assert_allclose(rocchio(query, right, wrong), expected / np.linalg.norm(expected), atol=1e-6)
    none = np.empty((0, 4), np.float32)
    np.testing.assert_allclose(rocchio(query, none, none), query)
    # The result is the zero vector.
    np.testing.assert_array_equal(rocchio(query, none, query[None] / 0.15), query)


def test_marked_photos_are_found_after_changes_by_others(tmp_path: Path) -> None:
    rows = unit([1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1])
    reader = Library.open(tmp_path, IDENTITY)
    for number, row in enumerate(rows):
        reader.add([Photo(f"{number}", 1, 1, (2, 3), metadata={"odd": str(number % 2)})], row[None])
    first = reader.search(rows[:1], 5)[0]
    ids = {answer.photo.name: answer.photo.id for answer in first}
    writer = Library(tmp_path, IDENTITY)
    with writer.writing():
        writer.add([Photo("5", 1, 1, (2, 3), metadata={"odd": "1"})], unit([0, 1, 1, 0]))
        writer.remove(["4"])
    found = search_with_feedback(reader, rows[0], [ids["3"], ids["4"]], [ids["0"]], 9)
    assert [answer.photo.name for answer in found] == ["3", "1", "5", "2", "0"]
    new = np.array([1 - 0.15, 0, 0.75, 0])
    assert found[0].cosine == pytest.approx(float(rows[3] @ new / np.linalg.norm(new)), abs=1e-6)
    odd = search_with_feedback(reader, rows[0], [], [ids["0"]], 9, {"odd": "1"})
    assert [answer.photo.name for answer in odd] == ["1", "3", "5", "0"]

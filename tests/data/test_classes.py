from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolglab.data.folder import class_benchmark, members_of
from dolglab.data.sources import FolderSource
from dolglab.errors import UserError


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "é", "🗼"]), max_size=20))
def test_members_are_the_rows_of_each_landmark(landmarks: list[str]) -> None:
    expected = {name: [row for row, other in enumerate(landmarks) if other == name] for name in set(landmarks)}
    found = members_of(np.array(landmarks, np.str_))
    assert {name: rows.tolist() for name, rows in found.items()} == expected


def test_every_image_queries_the_others_of_its_landmark(tmp_path: Path) -> None:
    names = [f"{row}.jpg" for row in range(6)]
    for name in names[:5]:
        (tmp_path / name).write_bytes(b"x")
    benchmark = class_benchmark("six", FolderSource(tmp_path, names), np.array(["b", "a", "b", "c", "a", "b"]))
    assert benchmark.num_gallery == 6
    assert benchmark.queries.tolist() == list(range(6))
    assert [part.tolist() for part in benchmark.ground_truth.easy] == [[2, 5], [4], [0, 5], [], [1], [0, 2]]
    assert [part.tolist() for part in benchmark.ground_truth.junk] == [[row] for row in range(6)]
    assert all(not len(part) for part in benchmark.ground_truth.hard)
    assert np.isnan(benchmark.boxes).all()
    assert benchmark.difficulties == ("medium",)


def test_the_digest_follows_names_sizes_and_labels(tmp_path: Path) -> None:
    names = ["0.jpg", "1.jpg", "2.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")

    def fingerprint(landmarks: list[str]) -> str:
        return class_benchmark("three", FolderSource(tmp_path, names), np.array(landmarks)).digest

    first = fingerprint(["a", "a", "b"])
    assert fingerprint(["a", "a", "b"]) == first
    assert fingerprint(["a", "a", "a"]) != first
    (tmp_path / "1.jpg").write_bytes(b"xy")
    assert fingerprint(["a", "a", "b"]) != first


@pytest.mark.parametrize("landmarks", [[], ["a"], ["a", "b", "c"]])
def test_nothing_to_find_is_an_error(tmp_path: Path, landmarks: list[str]) -> None:
    source = FolderSource(tmp_path, [f"{row}.jpg" for row in range(len(landmarks))])
    with pytest.raises(UserError, match="no landmark has two photos"):
        class_benchmark("nothing", source, np.array(landmarks, np.str_))

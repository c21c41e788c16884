"""Rows in memory and in a temporary file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.retrieval.large_arrays import assemble, l2_normalized, read_chunks, row_chunks


def test_a_large_gallery_is_in_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = np.arange(44, dtype=np.float32).reshape(11, 4)
    pieces = [rows[:1], rows[1:1], rows[1:8], np.asfortranarray(rows[8:])]
    small, large = assemble(11, 4, iter(pieces), in_memory=176), assemble(11, 4, iter(pieces), in_memory=175)
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(small, rows)
    np.testing.assert_array_equal(large, rows)


def test_a_gallery_without_space_is_refused_before_it_is_written() -> None:
    def made() -> Iterator[NDArray[np.float32]]:
        raise AssertionError("it was begun")
        yield

    with pytest.raises(UserError, match=r"1000000000000 x 512 .* 1907348.6 GiB .*TMPDIR"):
        assemble(10**12, 512, made())


def test_parts_of_a_map_are_its_rows(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((5000, 2048), np.float32)
    np.save(tmp_path / "rows.npy", rows)
    found = [part.copy() for part in read_chunks(np.load(tmp_path / "rows.npy", mmap_mode="r"))]
    assert len(found) > 1
    np.testing.assert_array_equal(np.concatenate(found), rows)


@pytest.mark.parametrize(("rows", "size"), [(0, 100), (1, 1), (7, 24), (8, 32), (9, 10**9)])
def test_chunks_cover_every_row_once_within_their_size(rows: int, size: int) -> None:
    parts = [np.arange(rows)[part] for part in row_chunks(rows, 2, size)]
    assert np.array_equal(np.concatenate([np.empty(0, int), *parts]), np.arange(rows))
    assert all(len(part) == 1 or len(part) * 8 <= size for part in parts)


def test_rows_have_length_one_or_zero() -> None:
    rows = np.array([[3, 4], [0, 0], [-1e-10, 0]], np.float32)
    np.testing.assert_allclose(l2_normalized(rows), [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)
    assert l2_normalized(rows.astype(np.float64)).dtype == np.float32
    assert l2_normalized(rows[:0]).shape == (0, 2)

"""Descriptors in files that never change: each addition is a segment, which a search reads where it lies.

A segment is a file of faiss, written aside and renamed, before the catalogue speaks of it; what the catalogue does not
know counts for nothing. So a process that is killed leaves no half-added photo, and who reads goes on while another
adds.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.retrieval.index import FlatIndex

FOLDER = "segments"
NAME = re.compile(r"(\d{8})\.flat")
# A key is a segment's number and a row in it.
ROW_BITS = 32


class SegmentStore:
    """The segments of a library in a folder; `dim` is the length of its descriptors."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder / FOLDER
        self.dim = dim
        self._open: dict[int, FlatIndex] = {}

    def write(self, descriptors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Keep descriptors, (n, dim); their keys, (n,). They are on disk when this returns. One process at a time."""
        numbers = [int(found[1]) for path in self._files() if (found := NAME.fullmatch(path.name))]
        number = max(numbers, default=0) + 1
        index = FlatIndex()
        index.build(descriptors)
        index.save(self.folder / f"{number:08d}.flat")
        return (number << ROW_BITS) + np.arange(len(descriptors))

    def search(
        self, queries: NDArray[np.float32], k: int, keys: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and keys, (Q, k) each, best first, among these `keys` (ascending); -inf and -1 where there are fewer.

        Raises InputError for a segment that is damaged or gone.
        """
        scores = np.full((len(queries), k), -np.inf, np.float32)
        found = np.full((len(queries), k), -1, np.int64)
        for number in np.unique(keys >> ROW_BITS).tolist():
            first = number << ROW_BITS
            rows = keys[np.searchsorted(keys, first) : np.searchsorted(keys, first + (1 << ROW_BITS))] - first
            segment = self._segment(number)
            allowed = np.zeros(len(segment), np.bool_)
            allowed[rows] = True
            more, places = segment.search(queries, k, None if allowed.all() else allowed)
            scores, found = _merged(k, (scores, found), (more, np.where(places >= 0, places + first, -1)))
        return scores, found

    def read(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """The descriptors with these keys, in their order, (n, dim). Raises InputError as `search`."""
        found = np.empty((len(keys), self.dim), np.float32)
        numbers = keys >> ROW_BITS
        for number in np.unique(numbers).tolist():
            own = np.flatnonzero(numbers == number)
            found[own] = self._segment(number).descriptors(keys[own] - (number << ROW_BITS))
        return found

    def damaged(self, keys: NDArray[np.int64]) -> list[tuple[int, int]]:
        """The first and the last key of each segment that some of `keys` are in, and that cannot be read."""
        found = []
        for number in np.unique(keys >> ROW_BITS).tolist():
            try:
                self._segment(number)
            except InputError:
                found.append((number << ROW_BITS, (number + 1 << ROW_BITS) - 1))
        return found

    def sweep(self, keys: NDArray[np.int64]) -> int:
        """Delete the segments of which no key is in use; how many. Who still reads them keeps what it has open."""
        used = set(np.unique(keys >> ROW_BITS).tolist())
        gone = [path for path in self._files() if (found := NAME.fullmatch(path.name)) and int(found[1]) not in used]
        for path in gone:
            path.unlink()
            path.with_name(f"{path.name}.json").unlink(missing_ok=True)
        return len(gone)

    def _segment(self, number: int) -> FlatIndex:
        if number not in self._open:
            index = FlatIndex()
            try:
                index.load(self.folder / f"{number:08d}.flat", mmap=True, dim=self.dim)
            except InputError as error:
                raise InputError(f"{error} (embed the photos again: what it held is described anew)") from None
            self._open[number] = index
        return self._open[number]

    def _files(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []


def _merged(
    k: int, *parts: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The best k of several answers; of equal scores the one added first."""
    scores, keys = (np.concatenate(together, axis=1) for together in zip(*parts, strict=True))
    order = np.lexsort((keys, -scores))[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(keys, order, 1)

"""Descriptors in files of faiss that never change: each addition is a segment, which a search reads where it lies.

A segment is written aside and renamed before the catalogue speaks of it; what the catalogue does not know counts for
nothing. So a process that is killed leaves no half-added photo, and who reads goes on while another adds.

Whole descriptors are always there. Over a large segment there may be an approximate index too, which proposes answers
whose cosines are then taken from the whole descriptors.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.library.catalogue import Contents, key_of, rows_in
from dolglab.retrieval.faiss_indexes import HNSWIndex, IVFPQIndex
from dolglab.retrieval.index import FlatIndex, Index

FOLDER = "segments"
FILE_NAME = re.compile(r"(\d{8})\.\w+(\.json)?")
KINDS = ("flat", "ivf_pq", "hnsw")
# An approximate index is asked for so many times the answers, and so many at least.
CANDIDATES, MIN_CANDIDATES = 10, 200
CODE_BYTES = 64

# Cosines and keys, (Q, k) each.
Found = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class SegmentLimits:
    """When segments are indexed, searched one by one, and merged.

    Attributes:
        indexed_from: descriptors of a segment from which an approximate index is worth its while.
        scanned_share: of a smaller share of photos that pass a filter, all are looked at.
        tier: segments of about one size that are left beside each other; a descriptor is written again each time they
            become one.
        merged_bytes: bytes of descriptors beyond which segments are not joined: making one takes about twice as much
            memory.
    """

    indexed_from: int = 20_000
    scanned_share: float = 0.05
    tier: float = 16
    merged_bytes: int = 1 << 30


LIMITS = SegmentLimits()


class SegmentStore:
    """The segments of a library in a folder.

    Args:
        folder: the library's.
        dim: length of its descriptors.
        kind: of the index over large segments.
        limits: from which size on they have one, and when it is asked.
    """

    def __init__(self, folder: Path, dim: int, kind: str = "flat", limits: SegmentLimits = LIMITS) -> None:
        self.folder = folder / FOLDER
        self.dim = dim
        self.kind = kind
        self.limits = limits
        self._open: dict[tuple[int, str], Index] = {}

    @classmethod
    def open(cls, folder: Path, dim: int, options: Mapping[str, Any], limits: SegmentLimits) -> SegmentStore:
        """As `open_store`."""
        return cls(folder, dim, options["kind"], limits)

    def write(self, number: int, descriptors: NDArray[np.float32]) -> str:
        """As `Store.write`."""
        whole = FlatIndex()
        whole.build(descriptors)
        whole.save(self._path(number, "flat"))
        kind = self._kind_of(len(descriptors))
        if kind != "flat":
            index = _new_index(kind, self.dim)
            index.build(descriptors)
            index.save(self._path(number, kind))
        return kind

    def search(
        self, queries: NDArray[np.float32], k: int, contents: Contents, allowed: NDArray[np.int64] | None = None
    ) -> Found:
        """As `Store.search`. Raises UserError for a segment that is damaged or gone."""
        self._close_others(contents)
        best = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        for number in contents.segments:
            mask = _mask(contents, number, allowed)
            if mask is None or mask.any():
                best = _best(k, best, self._search_one(queries, k, number, contents.segments[number].kind, mask))
        return best

    def rows(self, number: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As `Store.rows`. Raises UserError for a segment that is damaged or gone."""
        return self._flat(number).descriptors()[rows]

    def damaged(self, contents: Contents) -> list[int]:
        """As `Store.damaged`."""

        def readable(number: int, kind: str) -> bool:
            try:
                self._flat(number)
                self._index(number, kind)
            except UserError:
                return False
            return True

        return [number for number, segment in contents.segments.items() if not readable(number, segment.kind)]

    def outdated(self, contents: Contents) -> bool:
        """As `Store.outdated`."""
        return any(segment.kind != self._kind_of(segment.size) for segment in contents.segments.values())

    def sweep(self, contents: Contents) -> None:
        """Delete the files of other segments. Who still reads them keeps what it has open."""
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            found = FILE_NAME.fullmatch(path.name)
            if found and int(found[1]) not in contents.segments:
                path.unlink(missing_ok=True)
        self._close_others(contents)

    def close(self) -> None:
        """As `Store.close`."""
        self._open.clear()

    def _kind_of(self, size: int) -> str:
        return self.kind if size >= self.limits.indexed_from else "flat"

    def _close_others(self, contents: Contents) -> None:
        """Let go of files that are deleted: they keep their place on the disk as long as they are open."""
        for key in [key for key in list(self._open) if key[0] not in contents.segments]:
            self._open.pop(key, None)

    def _search_one(
        self, queries: NDArray[np.float32], k: int, number: int, kind: str, mask: NDArray[np.bool_] | None
    ) -> Found:
        whole = self._flat(number)
        if kind == "flat" or (mask is not None and mask.mean() < self.limits.scanned_share):
            cosines, rows = whole.search(queries, k, mask)
        else:
            candidates = min(len(whole), max(MIN_CANDIDATES, CANDIDATES * k))
            _, proposed = self._index(number, kind).search(queries, candidates, mask)
            cosines, rows = _rescore(queries, k, proposed, whole.descriptors())
        return cosines, np.where(rows >= 0, rows + key_of(number), -1)

    def _flat(self, number: int) -> FlatIndex:
        index = self._index(number, "flat")
        assert isinstance(index, FlatIndex)
        return index

    def _index(self, number: int, kind: str) -> Index:
        found = self._open.get((number, kind))
        if found is None:
            index = _new_index(kind, self.dim)
            try:
                index.load(self._path(number, kind), mmap=True, dim=self.dim)
            except UserError as error:
                raise UserError(f"{error} (embed the photos again: what it held is described anew)") from None
            found = self._open[number, kind] = index
        return found

    def _path(self, number: int, kind: str) -> Path:
        return self.folder / f"{number:08d}.{kind}"


def _new_index(kind: str, dim: int) -> Index:
    if kind == "ivf_pq":
        return IVFPQIndex(code_bytes=max(size for size in range(1, CODE_BYTES + 1) if dim % size == 0))
    return HNSWIndex() if kind == "hnsw" else FlatIndex()


def _mask(contents: Contents, number: int, allowed: NDArray[np.int64] | None) -> NDArray[np.bool_] | None:
    """Which rows of a segment are looked at; None for all."""
    dead = contents.dead_rows(number)
    if allowed is None and not len(dead):
        return None
    mask = np.full(contents.segments[number].size, allowed is None)
    if allowed is not None:
        mask[rows_in(allowed, number)] = True
    mask[dead] = False
    return mask


def _rescore(
    queries: NDArray[np.float32], k: int, proposed: NDArray[np.int64], descriptors: NDArray[np.float32]
) -> Found:
    """The best k of the proposed rows, (Q, n), -1 for none, by their cosines."""
    cosines = np.stack([descriptors[rows] @ query for rows, query in zip(proposed, queries, strict=True)])
    cosines[proposed < 0] = -np.inf
    return _best(k, (cosines, proposed))


def _best(k: int, *parts: Found) -> Found:
    """The best k of several answers; of equal scores the one added first."""
    scores, keys = (np.concatenate(together, axis=1) for together in zip(*parts, strict=True))
    order = np.lexsort((keys, -scores))[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(keys, order, 1)


def segments_to_merge(contents: Contents, dim: int, limits: SegmentLimits = LIMITS) -> list[int]:
    """Numbers of segments, of descriptors of `dim` values, that shall be made one, in their order; none if all is well.

    Those of about one size where there are many, and one of which more than half counts no longer.
    """
    tiers: dict[int, list[int]] = defaultdict(list)
    for number, segment in contents.segments.items():
        live = segment.size - len(contents.dead_rows(number))
        if 2 * live < segment.size:
            return [number]
        tiers[int(math.log(live, limits.tier))].append(number)
    full = [limit_merge(contents, numbers, dim, limits) for numbers in tiers.values() if len(numbers) > limits.tier]
    return next((numbers for numbers in full if len(numbers) > 1), [])


def limit_merge(contents: Contents, numbers: list[int], dim: int, limits: SegmentLimits = LIMITS) -> list[int]:
    """As many of the segments, from the first on, as together are not too large; one at least, where there is one."""
    totals = accumulate(contents.segments[number].size for number in numbers)
    return numbers[: max(1, sum(4 * dim * total <= limits.merged_bytes for total in totals))]

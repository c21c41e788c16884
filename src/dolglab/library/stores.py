"""Where a library's descriptors lie: in faiss's files here, or in a Milvus (`milvus_store`).

Files of faiss never change: each addition is a segment, which a search reads where it lies. A segment is written aside
and renamed before the catalogue speaks of it; what the catalogue does not know counts for nothing. So a process that is
killed leaves no half-added photo, and who reads goes on while another adds.

Whole descriptors are always there. Over a large segment there may be an approximate index too, which proposes answers
whose cosines are then taken from the whole descriptors.
"""

from __future__ import annotations

import importlib
import math
import re
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.library.contents import Contents, Descriptors, Keys, key_of, rows_in
from dolglab.retrieval.faiss_indexes import HNSWIndex, IVFPQIndex
from dolglab.retrieval.index import FlatIndex, Index

FOLDER = "segments"
FILE_NAME = re.compile(r"(\d{8})\.\w+(\.json)?")
KINDS = ("flat", "ivf_pq", "hnsw")
# An approximate index is asked for so many times the answers, and so many at least.
CANDIDATES, MIN_CANDIDATES = 10, 200
CODE_BYTES = 64

# Cosines and keys, (Q, k) each.
Found = tuple[NDArray[np.float32], Keys]


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


class Store(Protocol):
    """Keeps descriptors by key: see `Contents`.

    Its class has `open(folder, dim, options, limits)` besides, which `open_store` calls with its own arguments.
    """

    def write(self, number: int, descriptors: Descriptors) -> str:
        """Keep descriptors, (n, dim), as the segment of that number; the kind of index over it.

        They are on disk when this returns, and count for nothing until the catalogue knows the segment.
        """
        ...

    def search(self, queries: Descriptors, k: int, contents: Contents, allowed: Keys | None = None) -> Found:
        """Cosines and keys, (Q, k) each, best first; -inf and -1 where there are fewer.

        Only `allowed` keys, ascending, are looked at, where that is given.
        """
        ...

    def rows(self, number: int, rows: NDArray[np.int64]) -> Descriptors:
        """Descriptors of those rows of a segment, (n, dim), in their order."""
        ...

    def damaged(self, contents: Contents) -> list[int]:
        """Numbers of the segments that cannot be read."""
        ...

    def outdated(self, contents: Contents) -> bool:
        """Whether a segment has another index over it than this store gives to those of its size."""
        return False

    def sweep(self, contents: Contents) -> None:
        """Delete whatever the contents do not speak of."""

    def close(self) -> None:
        """Close files and connections."""


LITE = "milvus"
# The class behind each name that `--store` takes and the catalogue keeps; it is imported where a library needs it.
STORES: dict[str, str] = {
    **dict.fromkeys(KINDS, "dolglab.library.stores.SegmentStore"),
    LITE: "dolglab.library.milvus_store.MilvusStore",
}


def store_options(store: str | None) -> dict[str, Any]:
    """What a new library keeps about its store.

    Args:
        store: a name in `STORES` (flat, ivf_pq or hnsw: faiss, with that index over many descriptors; milvus: Milvus
            Lite, in the library's folder), or the address of a Milvus server, http://HOST:PORT. None is flat.

    Raises UserError for anything else.
    """
    store = store or "flat"
    if store == LITE or "://" in store:
        return {"kind": LITE, "uri": store, "collection": f"dolg_{uuid.uuid4().hex}"}
    if store in STORES:
        return {"kind": store}
    raise UserError(f"--store is {', '.join(STORES)} or the address of a Milvus server, not {store}")


def open_store(folder: Path, dim: int, options: Mapping[str, Any], limits: SegmentLimits) -> Store:
    """The store of a library.

    Args:
        folder: the library's.
        dim: length of its descriptors.
        options: what the library keeps about its store: see `store_options`.
        limits: when segments are indexed.

    Raises UserError where it cannot be opened.
    """
    kind = options["kind"]
    if kind not in STORES:
        raise UserError(f"{folder} keeps its descriptors in {kind}, which is none of {', '.join(STORES)} here")
    module, _, name = STORES[kind].rpartition(".")
    return getattr(importlib.import_module(module), name).open(folder, dim, options, limits)


class SegmentStore(Store):
    """The segments of a library in a folder, see `open_store`; `kind` is that of the index over large ones."""

    def __init__(self, folder: Path, dim: int, kind: str, limits: SegmentLimits) -> None:
        self.folder = folder / FOLDER
        self.dim = dim
        self.kind = kind
        self.limits = limits
        self._open: dict[tuple[int, str], Index] = {}

    @classmethod
    def open(cls, folder: Path, dim: int, options: Mapping[str, Any], limits: SegmentLimits) -> SegmentStore:
        return cls(folder, dim, options["kind"], limits)

    def write(self, number: int, descriptors: Descriptors) -> str:
        kind = self._kind_of(len(descriptors))
        for each in dict.fromkeys(("flat", kind)):
            index = _new_index(each, self.dim)
            index.build(descriptors)
            index.save(self._path(number, each))
        return kind

    def search(self, queries: Descriptors, k: int, contents: Contents, allowed: Keys | None = None) -> Found:
        """As `Store.search`. Raises UserError for a segment that is damaged or gone."""
        self._close_others(contents)
        best = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        for number in contents.segments:
            mask = contents.mask(number, allowed)
            if mask.any():
                best = _best(k, best, self._search_one(queries, k, number, contents.segments[number].kind, mask))
        return best

    def rows(self, number: int, rows: NDArray[np.int64]) -> Descriptors:
        """As `Store.rows`. Raises UserError for a segment that is damaged or gone."""
        return self._flat(number).descriptors()[rows]

    def damaged(self, contents: Contents) -> list[int]:
        damaged: list[int] = []
        for number, segment in contents.segments.items():
            try:
                self._flat(number)
                self._index(number, segment.kind)
            except UserError:
                damaged.append(number)
        return damaged

    def outdated(self, contents: Contents) -> bool:
        return any(segment.kind != self._kind_of(segment.size) for segment in contents.segments.values())

    def sweep(self, contents: Contents) -> None:
        """Delete the files of other segments. Who still reads them keeps what it has open."""
        for path in sorted(self.folder.glob("*")):
            found = FILE_NAME.fullmatch(path.name)
            if found and int(found[1]) not in contents.segments:
                path.unlink(missing_ok=True)
        self._close_others(contents)

    def close(self) -> None:
        self._open.clear()

    def _kind_of(self, size: int) -> str:
        return self.kind if size >= self.limits.indexed_from else "flat"

    def _close_others(self, contents: Contents) -> None:
        """Let go of files that are deleted: they keep their place on the disk as long as they are open."""
        for key in [key for key in list(self._open) if key[0] not in contents.segments]:
            self._open.pop(key, None)

    def _search_one(self, queries: Descriptors, k: int, number: int, kind: str, mask: NDArray[np.bool_]) -> Found:
        whole, wanted = self._flat(number), None if mask.all() else mask
        for name in dict.fromkeys(("flat", kind)):
            if len(self._index(number, name)) != len(mask):
                raise UserError(f"{self._path(number, name)} is not of the {len(mask)} descriptors of segment {number}")
        if kind == "flat" or mask.mean() < self.limits.scanned_share:
            cosines, rows = whole.search(queries, k, wanted)
        else:
            candidates = min(len(whole), max(MIN_CANDIDATES, CANDIDATES * k))
            _, proposed = self._index(number, kind).search(queries, candidates, wanted)
            if proposed.min() < -1 or proposed.max() >= len(whole):
                raise UserError(f"{self._path(number, kind)} is damaged: it speaks of descriptors that are not there")
            descriptors = whole.descriptors()
            cosines = np.stack([descriptors[rows] @ query for rows, query in zip(proposed, queries, strict=True)])
            cosines[proposed < 0] = -np.inf
            cosines, rows = _best(k, (cosines, proposed))
        return cosines, np.where(rows >= 0, rows + key_of(number), -1)

    def _flat(self, number: int) -> FlatIndex:
        index = self._index(number, "flat")
        assert isinstance(index, FlatIndex)
        return index

    def _index(self, number: int, kind: str) -> Index:
        found = self._open.get((number, kind))
        if found is None:
            if kind not in KINDS:
                raise UserError(f"{self.folder}: segment {number} has the unknown index {kind}")
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


def _best(k: int, *parts: Found) -> Found:
    """The best k of several answers; of equal scores the one added first."""
    scores, keys = (np.concatenate(together, axis=1) for together in zip(*parts, strict=True))
    order = np.lexsort((keys, -scores))[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(keys, order, 1)


def segments_to_merge(contents: Contents, dim: int, limits: SegmentLimits) -> list[int]:
    """Numbers of segments, of descriptors of `dim` values, that shall be made one, in their order; none if all is well.

    Those of about one size where there are many, and one of which more than half counts no longer.
    """
    tiers: dict[int, list[int]] = defaultdict(list)
    for number, segment in contents.segments.items():
        live = segment.size - len(rows_in(contents.dead, number))
        if 2 * live < segment.size:
            return [number]
        tiers[int(math.log(live, limits.tier))].append(number)
    full = [limit_merge(contents, numbers, dim, limits) for numbers in tiers.values() if len(numbers) > limits.tier]
    return next((numbers for numbers in full if len(numbers) > 1), [])


def limit_merge(contents: Contents, numbers: list[int], dim: int, limits: SegmentLimits) -> list[int]:
    """As many of the segments, from the first on, as together are not too large; one at least, where there is one."""
    totals = accumulate(contents.segments[number].size for number in numbers)
    return numbers[: max(1, sum(4 * dim * total <= limits.merged_bytes for total in totals))]

"""Stores of a library's descriptors: faiss's files in its folder, or Milvus (`milvus_store`).

Files of faiss never change: each addition is a new segment, which searches map into memory. A segment is written under
a temporary name and renamed before the catalogue lists it, and segments that are not in the catalogue do not count. So
a process that is killed leaves no half-added photos, and readers are not disturbed by a writer.

Full descriptors are always stored. Larger segments also have one-bit codes. In a large library, these select candidates
whose cosines are then computed from the full descriptors.
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
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.library.contents import ROW_BITS, Contents, Descriptors, Keys, key_of, rows_in
from dolglab.retrieval.index import FlatIndex, Index
from dolglab.retrieval.rabitq import FastScanCodes, RaBitQCodes, shortlist_size

FOLDER = "segments"
FILE_NAME = re.compile(r"(\d{8})\.(\w+?)(\.json)?")
FLAT, CODED = "flat", "rabitq"
# The files of a segment, by the kind of its index.
INDEXES: dict[str, tuple[type[Index], ...]] = {FLAT: (FlatIndex,), CODED: (FlatIndex, RaBitQCodes, FastScanCodes)}
# Kinds of earlier versions: their full descriptors are read, and the next process that writes makes codes.
REPLACED = ("ivf_pq", "hnsw")


# Scores and keys, (Q, k) each.
Scored = tuple[NDArray[np.float32], Keys]


class Found(NamedTuple):
    """Answers of a store: cosines and keys, (Q, k) each, best first, filled up with -inf and -1.

    `exact`: whether all descriptors were compared, and not only candidates from an index.
    """

    cosines: NDArray[np.float32]
    keys: Keys
    exact: bool = True


@dataclass(frozen=True)
class SegmentLimits:
    """When segments get codes, are searched by them, and are merged.

    Attributes:
        coded_from: number of descriptors from which a segment has codes.
        coded_dim: length of descriptors from which codes are used; those of shorter ones are too inaccurate.
        scanned_share: if candidates would be a larger share of the photos than this, all photos are compared: in a
            library of up to 20,000 photos for 1,000 candidates.
        shortlist: smallest number of candidates.
        tier: number of segments of similar size that are not merged yet; each merge writes a descriptor again.
        merged_bytes: largest size of a merged segment's descriptors in bytes; merging needs about twice the memory.
    """

    coded_from: int = 1000
    coded_dim: int = 128
    shortlist: int = 1000
    scanned_share: float = 0.05
    tier: float = 16
    merged_bytes: int = 1 << 30


LIMITS = SegmentLimits()


class Store(Protocol):
    """Stores descriptors by key, see `Contents`.

    Its class also has `open(folder, dim, options, limits)`, which `open_store` calls with its own arguments.
    """

    def write(self, number: int, descriptors: Descriptors) -> str:
        """Write descriptors, (n, dim), as a new segment; returns the kind of its index.

        They are on disk when this returns, but do not count until the catalogue lists the segment.
        """
        ...

    def search(
        self, queries: Descriptors, k: int, contents: Contents, allowed: Keys | None = None, exact: bool = False
    ) -> Found:
        """The best k answers to each query, (Q, dim); with `exact` all descriptors are compared.

        If `allowed` keys, ascending, are given, only these are searched.
        """
        ...

    def rows(self, number: int, rows: NDArray[np.int64]) -> Descriptors:
        """The descriptors in some rows of a segment, (n, dim), in their order."""
        ...

    def damaged(self, contents: Contents) -> list[int]:
        """Numbers of the segments that cannot be read."""
        ...

    def outdated(self, contents: Contents, look: bool = False) -> list[int]:
        """Numbers of the segments whose kind of index is not the one that this store uses for their size.

        With `look`, also of those whose descriptors can be read but not their index.
        """
        return []

    def index(self, number: int) -> str:
        """Build the index of an `outdated` segment; returns its kind."""
        raise NotImplementedError

    def resized(self, dim: int) -> Store:
        """A store for descriptors of another length in the same place. Raises UserError if that is not supported."""
        raise UserError("only descriptors in the library's own files can be adapted: embed a library without --store")

    def sweep(self, contents: Contents) -> None:
        """Delete everything that is not in the contents."""

    def close(self) -> None:
        """Close files and connections."""


LITE = "milvus"
# The class for each name that `--store` takes and the catalogue stores; imported when a library needs it.
STORES: dict[str, str] = {FLAT: "dolglab.library.stores.SegmentStore", LITE: "dolglab.library.milvus_store.MilvusStore"}


def store_options(store: str | None) -> dict[str, Any]:
    """The options of a new library's store, for its catalogue.

    Args:
        store: a name in `STORES` (flat: faiss's files; milvus: Milvus Lite, in the library's folder), or the address of
            a Milvus server, http://HOST:PORT. None is flat.

    Raises UserError for anything else.
    """
    store = store or FLAT
    if store in REPLACED:
        raise UserError(f"--store {store} no longer exists, because libraries make codes by themselves: omit --store")
    if store == LITE or "://" in store:
        return {"kind": LITE, "uri": store, "collection": f"dolg_{uuid.uuid4().hex}"}
    if store in STORES:
        return {"kind": store}
    raise UserError(f"--store must be {', '.join(STORES)} or the address of a Milvus server, not {store}")


def open_store(folder: Path, dim: int, options: Mapping[str, Any], limits: SegmentLimits) -> Store:
    """The store of a library.

    Args:
        folder: the library's folder.
        dim: length of its descriptors.
        options: options of its store, see `store_options`.
        limits: when segments are indexed and merged.

    Raises UserError if it cannot be opened.
    """
    kind = store_place(options)
    if kind not in STORES:
        raise UserError(f"{folder} keeps its descriptors in {kind}, which is not one of {', '.join(STORES)}")
    module, _, name = STORES[kind].rpartition(".")
    return getattr(importlib.import_module(module), name).open(folder, dim, options, limits)


def store_place(options: Mapping[str, Any]) -> str:
    """The name in `STORES` of a library's store, by its options; kinds of earlier versions are flat."""
    return FLAT if options["kind"] in REPLACED else options["kind"]


class SegmentStore(Store):
    """The segments of a library in a folder, see `open_store`."""

    def __init__(self, folder: Path, dim: int, limits: SegmentLimits) -> None:
        self.folder = folder / FOLDER
        self.dim = dim
        self.limits = limits
        self._open: dict[tuple[int, type[Index]], Index] = {}

    @classmethod
    def open(cls, folder: Path, dim: int, options: Mapping[str, Any], limits: SegmentLimits) -> SegmentStore:
        return cls(folder, dim, limits)

    def write(self, number: int, descriptors: Descriptors) -> str:
        whole = FlatIndex()
        whole.build(descriptors)
        whole.save(self._path(number, FlatIndex))
        return self._write_codes(number, descriptors)

    def search(
        self, queries: Descriptors, k: int, contents: Contents, allowed: Keys | None = None, exact: bool = False
    ) -> Found:
        """As `Store.search`. Raises UserError for a segment that is damaged or missing."""
        self._check_kinds(contents)
        self._close_others(contents)
        masks = {number: contents.mask(number, allowed) for number in contents.segments}
        counts = {number: int(np.count_nonzero(mask)) for number, mask in masks.items()}
        size = shortlist_size(k, self.limits.shortlist)
        by_codes = not exact and size < self.limits.scanned_share * sum(counts.values())
        coded = [number for number in counts if by_codes and counts[number] and contents.segments[number].kind == CODED]
        nothing = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        scanned = (number for number in counts if counts[number] and number not in coded)
        best = _best(k, nothing, *(self._ask(queries, k, number, masks[number], FlatIndex) for number in scanned))
        if coded:
            proposed = (self._propose(queries, size, number, masks[number]) for number in coded)
            keys = _best(size, *proposed)[1]
            best = _best(k, best, (self._cosines(queries, keys, {number: masks[number] for number in coded}), keys))
        return Found(*best, exact=not coded)

    def rows(self, number: int, rows: NDArray[np.int64]) -> Descriptors:
        """As `Store.rows`. Raises UserError for a segment that is damaged or missing."""
        return self._flat(number).descriptors()[rows]

    def damaged(self, contents: Contents) -> list[int]:
        return [number for number in contents.segments if not self._is_readable(number, FLAT)]

    def outdated(self, contents: Contents, look: bool = False) -> list[int]:
        self._check_kinds(contents)
        return [
            number
            for number, segment in contents.segments.items()
            if segment.kind != self._kind_of(segment.size) or (look and not self._is_readable(number, segment.kind))
        ]

    def index(self, number: int) -> str:
        return self._write_codes(number, self._flat(number).descriptors())

    def sweep(self, contents: Contents) -> None:
        """Delete the files of other segments and kinds. Processes that have them open can still read them."""
        for path in sorted(self.folder.glob("*")):
            found = FILE_NAME.fullmatch(path.name)
            if found and found[2] not in _file_kinds(contents, int(found[1])):
                path.unlink(missing_ok=True)
        self._close_others(contents)

    def resized(self, dim: int) -> SegmentStore:
        return SegmentStore(self.folder.parent, dim, self.limits)

    def close(self) -> None:
        self._open.clear()

    def _check_kinds(self, contents: Contents) -> None:
        for number, segment in contents.segments.items():
            if segment.kind not in (*INDEXES, *REPLACED):
                raise UserError(f"{self.folder}: segment {number} has the unknown index {segment.kind}")

    def _kind_of(self, size: int) -> str:
        return CODED if size >= self.limits.coded_from and self.dim >= self.limits.coded_dim else FLAT

    def _write_codes(self, number: int, descriptors: Descriptors) -> str:
        """Write the codes of a segment if its size requires them; returns the kind of its index."""
        kind = self._kind_of(len(descriptors))
        if kind == CODED:
            codes = RaBitQCodes()
            codes.build(descriptors)
            for index in (codes, FastScanCodes.pack(codes)):
                self._open.pop((number, type(index)), None)
                index.save(self._path(number, type(index)))
        return kind

    def _is_readable(self, number: int, kind: str) -> bool:
        try:
            for each in INDEXES[kind]:
                self._index(number, each)
        except UserError:
            return False
        return True

    def _close_others(self, contents: Contents) -> None:
        """Close files of deleted segments, which occupy disk space while they are open."""
        for key in [key for key in list(self._open) if key[0] not in contents.segments]:
            self._open.pop(key, None)

    def _propose(self, queries: Descriptors, size: int, number: int, mask: NDArray[np.bool_]) -> Scored:
        """The best `size` candidates of a segment by its codes, with estimated cosines."""
        return self._ask(queries, size, number, mask, FastScanCodes if mask.all() else RaBitQCodes)

    def _ask(self, queries: Descriptors, k: int, number: int, mask: NDArray[np.bool_], kind: type[Index]) -> Scored:
        """The best k descriptors in the mask of a segment, by one of its indexes."""
        index = self._sized(number, kind, len(mask))
        scores, rows = index.search(queries, min(k, len(mask)), None if mask.all() else mask)
        return scores, np.where(rows >= 0, rows + key_of(number), -1)

    def _cosines(self, queries: Descriptors, keys: Keys, masks: Mapping[int, NDArray[np.bool_]]) -> Descriptors:
        """Cosines of each query with its own keys, (Q, n), which are in the segments of `masks`, or -1."""
        cosines = np.full(keys.shape, -np.inf, np.float32)
        for number, mask in masks.items():
            self._sized(number, FlatIndex, len(mask))
            descriptors = self._flat(number).descriptors()
            for query, row, line in zip(queries, keys, cosines, strict=True):
                own = row >> ROW_BITS == number
                line[own] = descriptors[row[own] - key_of(number)] @ query
        return cosines

    def _sized(self, number: int, kind: type[Index], size: int) -> Index:
        """An index of a segment. Raises UserError unless it has this many descriptors."""
        index = self._index(number, kind)
        if len(index) != size:
            raise UserError(f"{self._path(number, kind)} is not of the {size} descriptors of segment {number}")
        return index

    def _flat(self, number: int) -> FlatIndex:
        index = self._index(number, FlatIndex)
        assert isinstance(index, FlatIndex)
        return index

    def _index(self, number: int, kind: type[Index]) -> Index:
        found = self._open.get((number, kind))
        if found is None:
            found = kind()
            try:
                found.load(self._path(number, kind), mmap=True, dim=self.dim)
            except UserError as error:
                raise UserError(f"{error} (dolglab embed repairs it and describes lost photos again)") from None
            self._open[number, kind] = found
        return found

    def _path(self, number: int, kind: type[Index]) -> Path:
        return self.folder / f"{number:08d}.{kind.kind}"


def _file_kinds(contents: Contents, number: int) -> list[str]:
    """The suffixes of a segment's files; none if the contents do not have it."""
    if number not in contents.segments:
        return []
    kind = contents.segments[number].kind
    # Earlier kinds, and perhaps those of later versions, have a file with the kind as suffix.
    return [FLAT, kind, *(each.kind for each in INDEXES.get(kind, ()))]


def _best(k: int, *parts: Scored) -> Scored:
    """The best k of several lists of answers; of equal scores, the key that was added first."""
    scores, keys = (np.concatenate(together, axis=1) for together in zip(*parts, strict=True))
    order = np.lexsort((keys, -scores))[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(keys, order, 1)


def segments_to_merge(contents: Contents, dim: int, limits: SegmentLimits) -> list[int]:
    """Numbers of segments, with descriptors of length `dim`, to merge next, in their order; empty if there are none.

    Segments of similar size are merged if there are many, and a segment is rewritten if more than half is deleted.
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
    """The first segments that together are within the size limit; at least one, if there is any."""
    totals = accumulate(contents.segments[number].size for number in numbers)
    return numbers[: max(1, sum(4 * dim * total <= limits.merged_bytes for total in totals))]

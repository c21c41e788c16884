"""Where a library's descriptors lie: in faiss's files here, or in a Milvus (`milvus_store`).

Files of faiss never change: each addition is a segment, which a search reads where it lies. A segment is written aside
and renamed before the catalogue speaks of it; what the catalogue does not know counts for nothing. So a process that is
killed leaves no half-added photo, and who reads goes on while another adds.

Whole descriptors are always there. Beside those of a segment that is not small lie one-bit codes, which in a large
library propose answers whose cosines are then taken from the whole descriptors.
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
# What lies in a segment's files, by the kind of index over it.
INDEXES: dict[str, tuple[type[Index], ...]] = {FLAT: (FlatIndex,), CODED: (FlatIndex, RaBitQCodes, FastScanCodes)}
# Kinds of earlier versions: their whole descriptors are read, and the next writer makes codes of them.
REPLACED = ("ivf_pq", "hnsw")


# Scores and keys, (Q, k) each.
Scored = tuple[NDArray[np.float32], Keys]


class Found(NamedTuple):
    """What a store answers: cosines and keys, (Q, k) each, best first; -inf and -1 where there are fewer.

    `exact`: all descriptors were compared, not those alone that an index proposed.
    """

    cosines: NDArray[np.float32]
    keys: Keys
    exact: bool = True


@dataclass(frozen=True)
class SegmentLimits:
    """When segments get codes, are searched by them, and are merged.

    Attributes:
        coded_from: descriptors of a segment from which codes of it are kept.
        coded_dim: values of a descriptor from which that pays; codes of fewer say too little.
        scanned_share: where codes would propose a larger share of the photos than this, all are compared: of 20,000
            photos or fewer with 1,000 proposed.
        shortlist: answers that codes propose at least.
        tier: segments of about one size that are left beside each other; a descriptor is written again each time they
            become one.
        merged_bytes: bytes of descriptors beyond which segments are not joined: making one takes about twice as much
            memory.
    """

    coded_from: int = 1000
    coded_dim: int = 128
    shortlist: int = 1000
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

    def search(
        self, queries: Descriptors, k: int, contents: Contents, allowed: Keys | None = None, exact: bool = False
    ) -> Found:
        """The best k of each query, (Q, dim); with `exact` all descriptors are compared.

        Only `allowed` keys, ascending, are looked at, where that is given.
        """
        ...

    def rows(self, number: int, rows: NDArray[np.int64]) -> Descriptors:
        """Descriptors of those rows of a segment, (n, dim), in their order."""
        ...

    def damaged(self, contents: Contents) -> list[int]:
        """Numbers of the segments that cannot be read."""
        ...

    def outdated(self, contents: Contents, look: bool = False) -> list[int]:
        """Numbers of the segments that have another kind of index than this store gives to those of their size.

        With `look` also of those whose index cannot be read, though their descriptors can.
        """
        return []

    def index(self, number: int) -> str:
        """Make the index of an `outdated` segment; its kind."""
        raise NotImplementedError

    def resized(self, dim: int) -> Store:
        """A store of descriptors of another length in the same place. Raises UserError where it can't be had."""
        raise UserError("descriptors that do not lie in the library's own files cannot be adapted: leave --store out")

    def sweep(self, contents: Contents) -> None:
        """Delete whatever the contents do not speak of."""

    def close(self) -> None:
        """Close files and connections."""


LITE = "milvus"
# The class behind each name that `--store` takes and the catalogue keeps; it is imported where a library needs it.
STORES: dict[str, str] = {FLAT: "dolglab.library.stores.SegmentStore", LITE: "dolglab.library.milvus_store.MilvusStore"}


def store_options(store: str | None) -> dict[str, Any]:
    """What a new library keeps about its store.

    Args:
        store: a name in `STORES` (flat: faiss's files; milvus: Milvus Lite, in the library's folder), or the address of
            a Milvus server, http://HOST:PORT. None is flat.

    Raises UserError for anything else.
    """
    store = store or FLAT
    if store in REPLACED:
        raise UserError(f"--store {store} gave way to codes that a library makes by itself: leave --store out")
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
    kind = store_place(options)
    if kind not in STORES:
        raise UserError(f"{folder} keeps its descriptors in {kind}, which is none of {', '.join(STORES)} here")
    module, _, name = STORES[kind].rpartition(".")
    return getattr(importlib.import_module(module), name).open(folder, dim, options, limits)


def store_place(options: Mapping[str, Any]) -> str:
    """The name in `STORES` of a library's store, by what it keeps about it; kinds of earlier versions are flat."""
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
        """As `Store.search`. Raises UserError for a segment that is damaged or gone."""
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
        """As `Store.rows`. Raises UserError for a segment that is damaged or gone."""
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
        """Delete the files of other segments and kinds. Who still reads them keeps what it has open."""
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
        """Write the codes of a segment that gets any; the kind of index over it."""
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
        """Let go of files that are deleted: they keep their place on the disk as long as they are open."""
        for key in [key for key in list(self._open) if key[0] not in contents.segments]:
            self._open.pop(key, None)

    def _propose(self, queries: Descriptors, size: int, number: int, mask: NDArray[np.bool_]) -> Scored:
        """The best `size` of a segment by its codes, with estimates of their cosines."""
        return self._ask(queries, size, number, mask, FastScanCodes if mask.all() else RaBitQCodes)

    def _ask(self, queries: Descriptors, k: int, number: int, mask: NDArray[np.bool_], kind: type[Index]) -> Scored:
        """The best k of those descriptors of a segment that count, by one of its indexes."""
        index = self._sized(number, kind, len(mask))
        scores, rows = index.search(queries, min(k, len(mask)), None if mask.all() else mask)
        return scores, np.where(rows >= 0, rows + key_of(number), -1)

    def _cosines(self, queries: Descriptors, keys: Keys, masks: Mapping[int, NDArray[np.bool_]]) -> Descriptors:
        """Cosines of each query's own keys, (Q, n), which are of the segments with these masks, or -1."""
        cosines = np.full(keys.shape, -np.inf, np.float32)
        for number, mask in masks.items():
            self._sized(number, FlatIndex, len(mask))
            descriptors = self._flat(number).descriptors()
            for query, row, line in zip(queries, keys, cosines, strict=True):
                own = row >> ROW_BITS == number
                line[own] = descriptors[row[own] - key_of(number)] @ query
        return cosines

    def _sized(self, number: int, kind: type[Index], size: int) -> Index:
        """An index of a segment. Raises UserError where it is not of so many descriptors."""
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
                raise UserError(f"{error} (dolglab embed mends it: what is lost is described anew)") from None
            self._open[number, kind] = found
        return found

    def _path(self, number: int, kind: type[Index]) -> Path:
        return self.folder / f"{number:08d}.{kind.kind}"


def _file_kinds(contents: Contents, number: int) -> list[str]:
    """Which files a segment has, by their suffixes; none that is not there."""
    if number not in contents.segments:
        return []
    kind = contents.segments[number].kind
    # Of a kind that was replaced, and of one that a later version may have: a file of its own.
    return [FLAT, kind, *(each.kind for each in INDEXES.get(kind, ()))]


def _best(k: int, *parts: Scored) -> Scored:
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

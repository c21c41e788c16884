"""The common part of faiss indexes over a gallery's descriptors, and the exact one; see `faiss_indexes` for the others.

On disk an index is a file written by faiss, and a JSON beside it that describes it. faiss trusts its files: a truncated
mapped file crashes the process, and flipped bits give wrong answers. So the JSON has the length and the digest of the
index, and is written after it. faiss is imported only where an index is built, searched or read.
"""

from __future__ import annotations

import json
import math
import os
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dolglab.contracts import BoolArray, FloatArray, IntArray
from dolglab.errors import UserError
from dolglab.io import atomic_path, sha256_of, write_text

# Rows checked or added at a time.
ROWS_AT_ONCE = 65_536
# Number of values in all queries, per thread, from which a matrix product is faster.
PRODUCT_FROM = 800
# The keys of the JSON beside an index.
FIELDS = {"kind", "settings", "dim", "count", "bytes", "sha256"}


class Index(ABC):
    """A gallery that can be searched by inner product, the cosine of L2-normalised descriptors.

    Attributes:
        kind: the name of this kind of index in configurations and files.
        faiss_class: the name of the class in faiss.
        exact: no answer is missing, and every score is the cosine.
        build_settings: names of the attributes that affect `build`.
        depth: number of answers that an evaluation requests from an approximate index; None for all answers.
    """

    kind: ClassVar[str]
    faiss_class: ClassVar[str]
    exact: ClassVar[bool] = False
    build_settings: ClassVar[tuple[str, ...]] = ()
    depth: int | None = None
    _index: Any = None
    _mapped: bool = False

    def __len__(self) -> int:
        """The number of indexed descriptors; 0 before `build` or `load`."""
        return 0 if self._index is None else int(self._index.ntotal)

    @property
    def settings(self) -> dict[str, int | None]:
        """The settings of `build`; an index that was built with other settings is refused by `load`."""
        return {name: getattr(self, name) for name in self.build_settings}

    @property
    def bytes_per_vector(self) -> float:
        """Bytes in memory per descriptor, including its share of common data (centroids, rotations)."""
        return self._memory_bytes(self._built()) / max(1, len(self))

    def build(self, descriptors: FloatArray, rows_at_once: int = ROWS_AT_ONCE) -> None:
        """Index the gallery, (N, D) float32, L2-normalised; it may be memory-mapped, and is copied in parts.

        The same descriptors give the same index. Raises UserError for NaN or infinite values, and for a gallery that is
        too small for the settings.
        """
        _check_finite(descriptors, "gallery", rows_at_once)
        self._index = self._build(descriptors, rows_at_once)
        self._mapped = False

    def search(self, queries: FloatArray, k: int, allowed: BoolArray | None = None) -> tuple[FloatArray, IntArray]:
        """Cosines and gallery positions, (Q, k) each, best first; equal cosines are in gallery order.

        If `allowed`, (N,), is given, only these descriptors are searched. If there is no k-th answer, the cosine is
        -inf and the position -1. Kinds that store codes return the cosine with the decoded descriptor. Raises UserError
        for NaN or infinite values, for k below 1, and for descriptors of another size than the gallery's.
        """
        import faiss

        index, selector = self._built(), None
        _check_finite(queries, "query")
        if queries.shape[1] != index.d:
            raise UserError(
                f"the queries have {queries.shape[1]} values each, but the gallery's descriptors have {index.d}"
            )
        if k < 1:
            raise UserError(f"the number of answers must be at least 1, not {k}")
        scores = np.full((len(queries), k), -np.inf, np.float32)
        positions = np.full((len(queries), k), -1, np.int64)
        if allowed is not None:
            # faiss keeps a reference to the array.
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))  # pyright: ignore[reportCallIssue]
        if len(self):
            self._fill(np.ascontiguousarray(queries, np.float32), scores, positions, selector)
        return scores, positions

    def save(self, path: Path) -> None:
        """Write the index to `path`, and its description to `path`.json; folders are created as needed.

        Raises UserError for a mapped index, a name that faiss does not accept, and a file that cannot be written.
        """
        import faiss

        index, beside = self._built(), path.with_name(f"{path.name}.json")
        if self._mapped:
            raise UserError(f"this index is mapped from a file: copy that file instead of saving it to {path}")
        about = {"kind": self.kind, "settings": self.settings, "dim": index.d, "count": len(self)}
        with atomic_path(path) as aside:
            name = _utf8(aside)
            try:
                faiss.write_index(index, name)
            except RuntimeError as error:
                raise UserError(f"{path} cannot be written: is the disk full?") from error
            about |= {"bytes": aside.stat().st_size, "sha256": sha256_of(aside)}
            # If the process is stopped between these steps, no JSON of another index remains.
            beside.unlink(missing_ok=True)
        write_text(beside, json.dumps(about, indent=2) + "\n")

    def load(self, path: Path, mmap: bool = False, dim: int | None = None) -> None:
        """Load the index that `save` wrote to `path`.

        Args:
            mmap: leave vectors, codes and graph in the file and read only what a search accesses (all kinds except
                codes packed for fast scan; common data, such as centroids and code books, is read at once). Then only
                the length of the file is checked, not its content.
            dim: expected length of the descriptors.

        Raises UserError for an index that is missing or damaged, or of another kind, settings, or descriptor size.
        """
        import faiss

        stored = self._read_header(path, dim)
        damaged = UserError(f"{path} is damaged: build the index again")
        try:
            if path.stat().st_size != stored["bytes"] or not (mmap or sha256_of(path) == stored["sha256"]):
                raise damaged
        except OSError as error:
            # Another process deleted it after its header was read.
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        # faiss has one flag to map inverted lists, and another for the vectors, codes and graphs of other kinds.
        mapped = faiss.IO_FLAG_MMAP if self.kind.startswith("ivf") else faiss.IO_FLAG_MMAP_IFC
        name = _utf8(path)
        try:
            index = faiss.read_index(name, mapped if mmap else 0)
        except (RuntimeError, MemoryError) as error:
            raise damaged from error
        found = type(index).__name__, index.metric_type, index.d, index.ntotal
        if found != (self.faiss_class, faiss.METRIC_INNER_PRODUCT, stored["dim"], stored["count"]):
            raise damaged
        if not self._is_whole(index):
            raise damaged
        self._index, self._mapped = index, mmap

    def _read_header(self, path: Path, dim: int | None) -> dict[str, Any]:
        """The JSON beside an index. Raises UserError if there is none, or if it does not match this index."""
        if not path.is_file():
            raise UserError(f"{path}: there is no index here: build one and save it")
        beside = path.with_name(f"{path.name}.json")
        try:
            stored = json.loads(beside.read_text())
        except OSError as error:
            raise UserError(f"{beside} cannot be read, so the index may be incomplete: build it again") from error
        except (ValueError, RecursionError):
            stored = None
        if not isinstance(stored, dict) or not isinstance(stored.get("settings"), dict) or FIELDS - stored.keys():
            raise UserError(f"{beside} is damaged: build the index again")
        if stored["kind"] != self.kind:
            raise UserError(f"{path} is an index of the kind {stored['kind']}, not {self.kind}: use that kind")
        if dim not in (None, stored["dim"]):
            raise UserError(f"{path} indexes descriptors of {stored['dim']} values, not {dim}: build it again")
        had, asked = stored["settings"], self.settings
        if others := [f"{name}={had.get(name)}, not {asked[name]}" for name in asked if had.get(name) != asked[name]]:
            raise UserError(f"{path} was built with {' and '.join(others)}: build it again or use the same settings")
        return stored

    def _built(self) -> Any:
        if self._index is None:
            raise RuntimeError("build the index before searching it")
        return self._index

    @abstractmethod
    def _build(self, descriptors: FloatArray, rows_at_once: int) -> Any:
        """Build the faiss index over these descriptors, which are finite."""

    @abstractmethod
    def _memory_bytes(self, index: Any) -> int:
        """The size of the index in memory, in bytes."""

    def _is_whole(self, index: Any) -> bool:
        """Whether arrays in the file have the sizes that faiss expects but does not check itself."""
        return True

    def _search(self, index: Any, queries: FloatArray, k: int, selector: Any) -> tuple[FloatArray, IntArray]:
        """The answers of faiss."""
        return index.search(queries, k, params=self._search_parameters(index, selector))

    def _search_parameters(self, index: Any, selector: Any) -> Any:
        """faiss parameters that override the index's own settings in a search, or None."""
        if selector is None:
            return None
        import faiss

        return faiss.SearchParameters(sel=selector)  # pyright: ignore[reportCallIssue]

    def _check_all(self, selector: Any) -> None:
        """Raise UserError for a selector, in kinds for which faiss (1.15) has none."""
        if selector is not None:
            raise UserError(f"{self.kind} cannot search only some of the descriptors: use index=flat")

    def _check_whole(self, minimum: int, *settings: str) -> None:
        """Raise UserError for a setting that is not a whole number of at least `minimum`."""
        for name in settings:
            value = getattr(self, name)
            if not isinstance(value, int) or value < minimum:
                raise UserError(f"index.{name} must be a whole number of at least {minimum}, not {value!r}")

    def _fill(self, queries: FloatArray, scores: FloatArray, positions: IntArray, selector: Any) -> None:
        """Write the first k answers of every query to `scores` and `positions`, (Q, k)."""
        k = min(scores.shape[1], len(self))
        rows, width = np.arange(len(queries)), min(k + 1, len(self))
        while len(rows):
            found, places = self._search(self._index, queries[rows], width, selector)
            found[places < 0] = -np.inf
            order = np.lexsort((places, -found))
            found, places = np.take_along_axis(found, order, 1), np.take_along_axis(places, order, 1)
            scores[rows, :k], positions[rows, :k] = found[:, :k], places[:, :k]
            if width == len(self):
                break
            # faiss keeps any of equal scores: if ties extend beyond the k-th answer, an earlier one may be missing.
            rows = rows[(found[:, k - 1] == found[:, -1]) & (places[:, -1] >= 0)]
            width = min(2 * width, len(self))


class FlatIndex(Index):
    """Exact search by inner product over every gallery descriptor."""

    kind = "flat"
    faiss_class = "IndexFlatIP"
    exact = True

    def descriptors(self) -> FloatArray:
        """The indexed descriptors, (N, D): a view of memory or of the mapped file."""
        import faiss

        index = self._built()
        return faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)

    def _build(self, descriptors: FloatArray, rows_at_once: int) -> Any:
        import faiss

        index = faiss.IndexFlatIP(descriptors.shape[1])
        # All at once: in parts, the index would be reallocated repeatedly, with two copies in memory each time.
        index.add(np.ascontiguousarray(descriptors, np.float32))
        return index

    def _memory_bytes(self, index: Any) -> int:
        return 4 * index.d * index.ntotal

    def _search(self, index: Any, queries: FloatArray, k: int, selector: Any) -> tuple[FloatArray, IntArray]:
        """Search with a matrix product if there are enough queries.

        faiss 1.15 uses products from 128,000 values on, a threshold for dozens of threads: on two threads, the 70
        queries of a benchmark took 14 times as long as with a product (its issue 4925).
        """
        import faiss

        default = _default_product_threshold()
        if queries.size >= PRODUCT_FROM * faiss.omp_get_max_threads():
            faiss.cvar.distance_compute_blas_threshold = 1
        try:
            return super()._search(index, queries, k, selector)
        finally:
            faiss.cvar.distance_compute_blas_threshold = default


@cache
def _default_product_threshold() -> int:
    """faiss's default: read once, since searches in other threads may have changed it temporarily."""
    import faiss

    return faiss.cvar.distance_compute_blas_threshold


def recall(approximate: IntArray, exact: IntArray, k: int) -> float:
    """Recall@k: the mean over queries of the share of the exact first k answers among the approximate first k.

    Both are (Q, k or more) gallery positions, best first, or -1 for no answer. Queries without an exact answer are left
    out; NaN if there are no others. Raises UserError for lists shorter than k, and for different numbers of queries.

    >>> recall(np.array([[4, 9, 2]]), np.array([[4, 2, 7]]), k=2)
    0.5
    """
    if len(approximate) != len(exact) or min(approximate.shape[1], exact.shape[1]) < k:
        raise UserError(f"recall@{k} needs {k} answers per query, not lists of {approximate.shape} and {exact.shape}")
    found, wanted = approximate[:, :k], exact[:, :k]
    # A unique number for every pair of query and position, so that one look-up serves all queries.
    first = np.arange(len(exact))[:, None] * (max(found.max(initial=0), wanted.max(initial=0)) + 1)
    hits = (np.isin(first + wanted, (first + found)[found >= 0]) & (wanted >= 0)).sum(1)
    counts = (wanted >= 0).sum(1)
    return float((hits[counts > 0] / counts[counts > 0]).mean()) if counts.any() else math.nan


def _check_finite(descriptors: FloatArray, role: str, rows_at_once: int = ROWS_AT_ONCE) -> None:
    if descriptors.ndim != 2:
        raise UserError(f"{role} descriptors must be a table with one row each, not of shape {descriptors.shape}")
    for start in range(0, len(descriptors), rows_at_once):
        if not np.isfinite(descriptors[start : start + rows_at_once]).all():
            raise UserError(f"a {role} descriptor is not finite: the network returned NaN or infinity")


def _utf8(path: Path) -> str:
    try:
        return path.as_posix().encode().decode()
    except UnicodeEncodeError as error:
        raise UserError(f"{os.fsencode(path)!r}: faiss accepts only UTF-8 names: rename the folder or file") from error

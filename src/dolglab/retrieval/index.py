"""faiss indexes over a gallery's descriptors, and the exact one. faiss is imported only where an index is made or read.

The approximate kinds are in `index_inverted`, `index_codes` and `index_graph`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.retrieval.index_files import Header, read_index, write_index

# Rows checked, or added to an index, at a time.
ROWS_AT_ONCE = 65_536
# Values of all queries together, for each thread, from which a matrix product is the faster way (faiss's own measure).
PRODUCT_FROM = 800


class Index(ABC):
    """A gallery that can be searched by inner product, which is the cosine of L2-normalised descriptors.

    Attributes:
        kind: the name of this kind of index in the configs and in its files.
        exact: no answer is missing, and every score is the cosine.
        depth: how many answers an evaluation asks of an approximate index; None of an exact one, for it has them all.
    """

    kind: ClassVar[str]
    exact: ClassVar[bool] = False
    depth: int | None = None

    def __init__(self) -> None:
        self._index: Any = None
        self._mapped = False

    def __len__(self) -> int:
        """How many descriptors are indexed; 0 before `build` or `load`."""
        return 0 if self._index is None else int(self._index.ntotal)

    @property
    def settings(self) -> dict[str, int | None]:
        """What was asked of `build`; an index that was built with anything else is another one."""
        return {}

    @property
    def bytes_per_vector(self) -> float:
        """Bytes in memory for each descriptor, with its share of what is common to all (centroids, rotations)."""
        return self._bytes(self._built()) / max(1, len(self))

    def build(self, descriptors: NDArray[np.float32]) -> None:
        """Index the gallery, (N, D) float32, L2-normalised; it may be memory-mapped, and is copied in parts.

        The same descriptors give the same index. Raises UserError for NaN or infinite values and for a gallery too
        small for what was asked.
        """
        _check_finite(descriptors, "gallery")
        self._index = self._make(descriptors)
        self._mapped = False

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and gallery positions, (Q, k) each, best first; equal cosines in gallery order.

        Only `allowed` descriptors, (N,), are looked at, where that is given.
        Where there is no k-th answer the cosine is -inf and the position -1. Kinds that store codes give the cosine
        with what the code stands for. Raises UserError for NaN or infinite values, k below 1, and descriptors of
        another size than the gallery's.
        """
        index = self._built()
        _check_finite(queries, "query")
        if queries.shape[1] != index.d:
            raise UserError(f"the queries have {queries.shape[1]} values each, the gallery's descriptors {index.d}")
        if k < 1:
            raise UserError(f"at least one answer must be asked for, not {k}")
        scores = np.full((len(queries), k), -np.inf, np.float32)
        positions = np.full((len(queries), k), -1, np.int64)
        if len(self):
            self._fill(np.ascontiguousarray(queries, np.float32), scores, positions, _selection(allowed))
        return scores, positions

    def save(self, path: Path) -> None:
        """Write the index to `path`, and what it is to `path`.json. Raises UserError for an index that is mapped."""
        index = self._built()
        if self._mapped:
            raise UserError(f"this index is mapped from its file: copy that file instead of saving it to {path}")
        write_index(path, index, Header(self.kind, self.settings, index.d, len(self)))

    def load(self, path: Path, mmap: bool = False, dim: int | None = None) -> None:
        """Take the index that `save` wrote to `path`.

        Args:
            path: where it is.
            mmap: leave vectors, codes and graph in the file and read what a search touches (every kind can; the
                common part, centroids and code books, is read at once). Only the file's length is checked then, not
                its content.
            dim: length of the descriptors that it must index.

        Raises:
            UserError: no such index, a damaged one, another kind, other settings, or descriptors of another size.
        """
        self._index = read_index(path, Header(self.kind, self.settings, dim), mmap)
        self._mapped = mmap

    def _built(self) -> Any:
        if self._index is None:
            raise RuntimeError("build the index before searching it")
        return self._index

    @abstractmethod
    def _make(self, descriptors: NDArray[np.float32]) -> Any:
        """The faiss index over these descriptors, which are finite."""

    @abstractmethod
    def _bytes(self, index: Any) -> int:
        """Bytes that the index takes in memory."""

    def _ask(
        self, index: Any, queries: NDArray[np.float32], k: int, selection: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What faiss answers, after setting what a search needs."""
        return index.search(queries, k, params=None if selection is None else self._parameters(index, selection))

    def _parameters(self, index: Any, selection: Any) -> Any:
        """Of a search among some: what replaces the index's own settings."""
        import faiss

        return faiss.SearchParameters(sel=selection)  # pyright: ignore[reportCallIssue]

    def _fill(
        self,
        queries: NDArray[np.float32],
        scores: NDArray[np.float32],
        positions: NDArray[np.int64],
        selection: Any,
    ) -> None:
        """Put the first k answers of every query into `scores` and `positions`, (Q, k)."""
        k = min(scores.shape[1], len(self))
        rows, width = np.arange(len(queries)), min(k + 1, len(self))
        while len(rows):
            found, places = self._ask(self._index, queries[rows], width, selection)
            found[places < 0] = -np.inf
            order = np.lexsort((places, -found))
            found, places = np.take_along_axis(found, order, 1), np.take_along_axis(places, order, 1)
            scores[rows, :k], positions[rows, :k] = found[:, :k], places[:, :k]
            if width == len(self):
                break
            # Of equal scores faiss keeps any: while they go on beyond the k-th, one that stands earlier may be missing.
            rows = rows[(found[:, k - 1] == found[:, -1]) & (places[:, -1] >= 0)]
            width = min(2 * width, len(self))


class FlatIndex(Index):
    """Exact search by inner product over every gallery descriptor."""

    kind = "flat"
    exact = True

    def descriptors(self) -> NDArray[np.float32]:
        """What is indexed, (N, D): a view, of the file where it is mapped."""
        import faiss

        index = self._built()
        return faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)

    def _make(self, descriptors: NDArray[np.float32]) -> Any:
        import faiss

        index = faiss.IndexFlatIP(descriptors.shape[1])
        # At once: in parts, the index would outgrow its memory again and again, and hold two copies each time.
        index.add(np.ascontiguousarray(descriptors, np.float32))
        return index

    def _bytes(self, index: Any) -> int:
        return 4 * index.d * index.ntotal

    def _ask(
        self, index: Any, queries: NDArray[np.float32], k: int, selection: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """By a matrix product where there are queries enough.

        faiss 1.15 takes products from 128,000 values on, a measure for dozens of threads: on two, the 70 queries of a
        benchmark took it 14 times as long as a product (its issue 4925).
        """
        import faiss

        usual = _usual_threshold()
        if queries.size >= PRODUCT_FROM * faiss.omp_get_max_threads():
            faiss.cvar.distance_compute_blas_threshold = 1
        try:
            return super()._ask(index, queries, k, selection)
        finally:
            faiss.cvar.distance_compute_blas_threshold = usual


@cache
def _usual_threshold() -> int:
    """What faiss came with: read once, since searches in other threads may have changed it for a moment."""
    import faiss

    return faiss.cvar.distance_compute_blas_threshold


def recall(approximate: NDArray[np.int64], exact: NDArray[np.int64], k: int) -> float:
    """Recall@k: the share of the exact first k answers that are among the approximate first k, mean over the queries.

    Both are (Q, k or more) gallery positions, best first, -1 where there is none. Queries without an exact answer are
    left out; NaN when there are no others. Raises UserError for lists shorter than k or of other queries.
    """
    if len(approximate) != len(exact) or min(approximate.shape[1], exact.shape[1]) < k:
        raise UserError(f"recall@{k} needs {k} answers a query, not lists of {approximate.shape} and {exact.shape}")
    found, wanted = approximate[:, :k], exact[:, :k]
    # A number of its own for every pair of query and position, so that one look-up serves all queries.
    first = np.arange(len(exact))[:, None] * (max(found.max(initial=0), wanted.max(initial=0)) + 1)
    hits = (np.isin(first + wanted, (first + found)[found >= 0]) & (wanted >= 0)).sum(1)
    counts = (wanted >= 0).sum(1)
    return float((hits[counts > 0] / counts[counts > 0]).mean()) if counts.any() else math.nan


def _selection(allowed: NDArray[np.bool_] | None) -> Any:
    import faiss

    if allowed is None:
        return None
    # faiss keeps the array that it is given.
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))  # pyright: ignore[reportCallIssue]


def check_whole(least: int, **values: object) -> None:
    """Raise UserError for a setting that is no whole number of at least `least`."""
    for name, value in values.items():
        if not isinstance(value, int) or value < least:
            raise UserError(f"index.{name} must be a whole number of at least {least}, not {value!r}")


def _check_finite(descriptors: NDArray[np.float32], role: str) -> None:
    if descriptors.ndim != 2:
        raise UserError(f"{role} descriptors must be a table of one row each, not of shape {descriptors.shape}")
    for start in range(0, len(descriptors), ROWS_AT_ONCE):
        if not np.isfinite(descriptors[start : start + ROWS_AT_ONCE]).all():
            raise UserError(f"a {role} descriptor is not finite: the network gave NaN or infinity")

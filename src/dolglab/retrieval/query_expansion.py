"""Database-side augmentation: each gallery descriptor drawn towards its neighbours."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.retrieval.exact_dot import memory_map_of
from dolglab.retrieval.ranking import exact_ranking

# Galleries of more bytes than this go to a temporary file.
IN_MEMORY = 4 * 2**30
CHUNK = 32 * 2**20


def chunks(rows: int, dim: int, size: int = CHUNK) -> Iterator[slice]:
    """Consecutive slices over `rows` rows, each of at most `size` bytes of float32 and at least one row."""
    step = max(1, size // (4 * max(1, dim)))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def parts(gallery: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The rows chunk by chunk; of a read-only memory map, no pages are held for longer than their chunk."""
    mapping = memory_map_of(gallery)
    for rows in chunks(*gallery.shape):
        yield gallery[rows]
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)


def assembled(
    rows: int, dim: int, consecutive: Iterable[NDArray[np.float32]], in_memory: int = IN_MEMORY
) -> NDArray[np.float32]:
    """Parts put together to (rows, dim) float32: in memory or, beyond `in_memory` bytes, mapped from a temporary file.

    The file goes with the array. Raises UserError when there is no room for it.
    """
    size = rows * dim * 4
    if size <= in_memory:
        whole, start = np.empty((rows, dim), np.float32), 0
        for part in consecutive:
            whole[start : start + len(part)] = part
            start += len(part)
        return whole
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"a changed gallery of {rows} x {dim} needs {size / 2**30:.1f} GiB in {folder}, which has "
            f"{free / 2**30:.1f}: name another folder by the environment variable TMPDIR"
        )
    with tempfile.TemporaryFile() as file:
        for part in consecutive:
            file.write(np.ascontiguousarray(part).data)
        file.flush()
        return np.memmap(file, np.float32, "r", shape=(rows, dim))


def normalized(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length one, (N, D) float32; a row of zeros stays as it is."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)


def alpha_weights(cosines: NDArray[np.float32], found: NDArray[np.int64], alpha: float) -> NDArray[np.float32]:
    """What each neighbour weighs, (Q, n): cosine^alpha, and 0 for a cosine not above 0 or no neighbour (-1)."""
    counted = (found >= 0) & (cosines > 0)
    return np.where(counted, np.where(counted, cosines, 1) ** alpha, 0).astype(np.float32)


def with_neighbours(
    descriptors: NDArray[np.float32],
    gallery: NDArray[np.float32],
    found: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Each descriptor plus its weighted neighbours, L2-normalised.

    Args:
        descriptors: (Q, D), which weigh 1.
        gallery: (N, D).
        found: (Q, n) positions in the gallery, -1 where there is none.
        weights: (Q, n).
    """
    total = descriptors.copy()
    # One neighbour of all descriptors at a time: gathering all at once would take n times the memory.
    for column, weight in zip(found.T, weights.T, strict=True):
        rows = np.flatnonzero((column >= 0) & (weight > 0))
        total[rows] += weight[rows, None] * gallery[column[rows]]
    return normalized(total)


def unlabelled(queries: int) -> tuple[NDArray[np.int64], ...]:
    """Of which images a ranking is to say nothing in particular: none, for each query."""
    return (np.empty(0, np.int64),) * queries


def check_expansion(name: str, neighbours: int, alpha: float) -> None:
    """Raise UserError for settings with no meaning."""
    if neighbours < 1 or not 0 <= alpha < float("inf"):
        raise UserError(f"{name} needs neighbours >= 1 and alpha >= 0, not neighbours={neighbours}, alpha={alpha}")


class AlphaQE:
    """Alpha query expansion: the query plus its first answers, each times cosine^alpha (Radenovic et al., TPAMI 2018).

    With alpha 0 it is average query expansion (Chum et al., ICCV 2007, without verification). A query that is itself in
    the gallery is its own first answer and so weighs 2.

    Args:
        neighbours: how many answers are added.
        alpha: how much faster than the cosine an answer's weight falls. Answers with cosine <= 0 weigh nothing.

    Raises:
        UserError: neighbours below 1, alpha below 0.
    """

    def __init__(self, neighbours: int = 10, alpha: float = 3.0) -> None:
        check_expansion("post.alpha_qe", neighbours, alpha)
        self.neighbours = neighbours
        self.alpha = alpha

    def __call__(
        self,
        gallery: NDArray[np.float32],
        queries: NDArray[np.float32],
        known: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The gallery as it is, (N, D), and the expanded queries, (Q, D)."""
        ranked = exact_ranking(gallery, queries, unlabelled(len(queries)), self.neighbours, known)
        weights = alpha_weights(ranked.scores, ranked.heads, self.alpha)
        return gallery, with_neighbours(queries, gallery, ranked.heads, weights)

    def describe(self) -> dict[str, object]:
        """What a result card says of it."""
        return {"query_expansion": "alpha", "neighbours": self.neighbours, "alpha": self.alpha}


class DatabaseAugmentation:
    """Each gallery image becomes the weighted mean of itself and its first gallery neighbours.

    After Turcot and Lowe (ICCV workshops 2009) and Arandjelovic and Zisserman (CVPR 2012). The image itself weighs 1
    and a neighbour cosine^alpha, as in alpha query expansion, where Gordo et al. (IJCV 2017) weight by rank.

    Every image is a query for the whole gallery: N^2 D multiplications, done once, hours for a million images on a CPU.

    Args:
        neighbours: how many other images are added to each.
        alpha: how much faster than the cosine a neighbour's weight falls. Neighbours with cosine <= 0 weigh nothing.

    Raises:
        UserError: neighbours below 1, alpha below 0.
    """

    def __init__(self, neighbours: int = 10, alpha: float = 3.0) -> None:
        check_expansion("post.dba", neighbours, alpha)
        self.neighbours = neighbours
        self.alpha = alpha

    def __call__(
        self,
        gallery: NDArray[np.float32],
        queries: NDArray[np.float32],
        known: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The augmented gallery, (N, D), and the queries as they are, (Q, D)."""
        known = np.ones(len(gallery), np.bool_) if known is None else known
        return assembled(len(gallery), gallery.shape[1], self._augmented(gallery, known)), queries

    def _augmented(self, gallery: NDArray[np.float32], known: NDArray[np.bool_]) -> Iterator[NDArray[np.float32]]:
        for rows in chunks(*gallery.shape):
            part = np.zeros((rows.stop - rows.start, gallery.shape[1]), np.float32)
            own = rows.start + np.flatnonzero(known[rows])
            descriptors = np.asarray(gallery[own])
            ranked = exact_ranking(gallery, descriptors, unlabelled(len(own)), self.neighbours + 1, known)
            found, cosines = without(own, ranked.heads, ranked.scores)
            weights = alpha_weights(cosines, found, self.alpha)
            part[known[rows]] = with_neighbours(descriptors, gallery, found, weights)
            yield part

    def describe(self) -> dict[str, object]:
        """What a result card says of it."""
        return {"database_augmentation": "alpha", "neighbours": self.neighbours, "alpha": self.alpha}


def without(
    own: NDArray[np.int64], found: NDArray[np.int64], cosines: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Neighbours and cosines without the image itself, (Q, n) of (Q, n + 1).

    Copies of an image may crowd it out of its own answers: then the last answer goes.
    """
    order = np.argsort(found == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(found, order, 1), np.take_along_axis(cosines, order, 1)

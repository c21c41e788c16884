"""Descriptors drawn towards their neighbours: queries (query expansion) and galleries (database augmentation)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.retrieval.large_arrays import CHUNK_BYTES, assemble, l2_normalized, row_chunks
from dolglab.retrieval.ranking import exact_ranking


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
        _check_settings("post.alpha_qe", neighbours, alpha)
        self.neighbours = neighbours
        self.alpha = alpha

    def __call__(
        self, gallery: NDArray[np.float32], queries: NDArray[np.float32], available: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The gallery as it is, (N, D), and the expanded queries, (Q, D)."""
        found, cosines = _nearest(gallery, queries, self.neighbours, available)
        return gallery, add_neighbours(queries, gallery, found, alpha_weights(cosines, found, self.alpha))

    def config(self) -> dict[str, object]:
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
        _check_settings("post.dba", neighbours, alpha)
        self.neighbours = neighbours
        self.alpha = alpha

    def __call__(
        self,
        gallery: NDArray[np.float32],
        queries: NDArray[np.float32],
        available: NDArray[np.bool_] | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The augmented gallery, (N, D), and the queries as they are, (Q, D)."""
        there = np.ones(len(gallery), np.bool_) if available is None else available

        def augmented() -> Iterator[NDArray[np.float32]]:
            for rows in row_chunks(len(gallery), gallery.shape[1], chunk_bytes):
                chunk = np.zeros((rows.stop - rows.start, gallery.shape[1]), np.float32)
                own = rows.start + np.flatnonzero(there[rows])
                descriptors = np.asarray(gallery[own])
                nearest = _nearest(gallery, descriptors, self.neighbours + 1, there)
                found, cosines = without_self(own, *nearest)
                weights = alpha_weights(cosines, found, self.alpha)
                chunk[there[rows]] = add_neighbours(descriptors, gallery, found, weights)
                yield chunk

        return assemble(len(gallery), gallery.shape[1], augmented()), queries

    def config(self) -> dict[str, object]:
        """What a result card says of it."""
        return {"database_augmentation": "alpha", "neighbours": self.neighbours, "alpha": self.alpha}


def alpha_weights(cosines: NDArray[np.float32], found: NDArray[np.int64], alpha: float) -> NDArray[np.float32]:
    """What each neighbour weighs, (Q, n): cosine^alpha, and 0 for a cosine not above 0 or no neighbour (-1).

    >>> alpha_weights(np.array([[0.5, 0.5, -0.5]], np.float32), np.array([[3, -1, 2]]), alpha=3).tolist()
    [[0.125, 0.0, 0.0]]
    """
    counted = (found >= 0) & (cosines > 0)
    return np.where(counted, np.where(counted, cosines, 1) ** alpha, 0).astype(np.float32)


def add_neighbours(
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
    return l2_normalized(total)


def without_self(
    own: NDArray[np.int64], found: NDArray[np.int64], cosines: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Neighbours and cosines without the image itself, (Q, n) of (Q, n + 1).

    Copies of an image may crowd it out of its own answers: then the last answer goes.
    """
    order = np.argsort(found == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(found, order, 1), np.take_along_axis(cosines, order, 1)


def _nearest(
    gallery: NDArray[np.float32], queries: NDArray[np.float32], count: int, available: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The first `count` gallery positions of each query and their cosines, (Q, count) each."""
    ranked = exact_ranking(gallery, queries, (np.empty(0, np.int64),) * len(queries), count, available)
    return ranked.heads, ranked.scores


def _check_settings(name: str, neighbours: int, alpha: float) -> None:
    if neighbours < 1 or not 0 <= alpha < float("inf"):
        raise UserError(f"{name} needs neighbours >= 1 and alpha >= 0, not neighbours={neighbours}, alpha={alpha}")

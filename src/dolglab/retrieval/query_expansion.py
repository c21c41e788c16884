"""Move descriptors towards their neighbours: queries (query expansion) and galleries (database augmentation)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from dolglab.contracts import BoolArray, FloatArray, IntArray
from dolglab.errors import UserError
from dolglab.retrieval.large_arrays import CHUNK_BYTES, assemble, l2_normalized, row_chunks
from dolglab.retrieval.ranking import exact_ranking


@dataclass(eq=False)
class AlphaQE:
    """Alpha query expansion: the query plus its first answers, each times cosine^alpha (Radenovic et al., TPAMI 2018).

    Alpha 0 gives average query expansion (Chum et al., ICCV 2007, without verification). A query in the gallery is its
    own first answer, and therefore has weight 2.

    Args:
        neighbours: number of answers that are added.
        alpha: exponent of the cosine in an answer's weight. Answers with cosine <= 0 have weight 0.

    Raises UserError for neighbours below 1, alpha below 0.
    """

    names: ClassVar[tuple[str, str]] = "post.alpha_qe", "query_expansion"

    neighbours: int = 10
    alpha: float = 3.0

    def __post_init__(self) -> None:
        if self.neighbours < 1 or not 0 <= self.alpha < float("inf"):
            given = f"neighbours={self.neighbours}, alpha={self.alpha}"
            raise UserError(f"{self.names[0]} needs neighbours >= 1 and alpha >= 0, not {given}")

    def __call__(
        self, gallery: FloatArray, queries: FloatArray, available: BoolArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """The unchanged gallery, (N, D), and the expanded queries, (Q, D)."""
        found, cosines = _nearest(gallery, queries, self.neighbours, available)
        return gallery, add_neighbours(queries, gallery, found, alpha_weights(cosines, found, self.alpha))

    def config(self) -> dict[str, object]:
        return {self.names[1]: "alpha", **asdict(self)}


class DatabaseAugmentation(AlphaQE):
    """Each gallery image becomes the weighted mean of itself and its first gallery neighbours.

    After Turcot and Lowe (ICCV workshops 2009) and Arandjelovic and Zisserman (CVPR 2012). The image itself has weight
    1, its neighbours have cosine^alpha as in alpha query expansion (Gordo et al., IJCV 2017, weight by rank). Arguments
    and errors are those of `AlphaQE`.

    Every image is a query for the whole gallery: N^2 D multiplications, once; hours for a million images on a CPU.
    """

    names = "post.dba", "database_augmentation"

    def __call__(
        self,
        gallery: FloatArray,
        queries: FloatArray,
        available: BoolArray | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> tuple[FloatArray, FloatArray]:
        """The augmented gallery, (N, D), and the unchanged queries, (Q, D)."""
        there = np.ones(len(gallery), np.bool_) if available is None else available

        def augmented() -> Iterator[FloatArray]:
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


def alpha_weights(cosines: FloatArray, found: IntArray, alpha: float) -> FloatArray:
    """The weight of each neighbour, (Q, n): cosine^alpha, and 0 for a cosine <= 0 or a missing neighbour (-1).

    >>> alpha_weights(np.array([[0.5, 0.5, -0.5]], np.float32), np.array([[3, -1, 2]]), alpha=3).tolist()
    [[0.125, 0.0, 0.0]]
    """
    counted = (found >= 0) & (cosines > 0)
    return np.where(counted, np.where(counted, cosines, 1) ** alpha, 0).astype(np.float32)


def add_neighbours(descriptors: FloatArray, gallery: FloatArray, found: IntArray, weights: FloatArray) -> FloatArray:
    """Each descriptor plus its weighted neighbours, L2-normalised.

    Args:
        descriptors: (Q, D), with weight 1.
        gallery: (N, D).
        found: (Q, n) positions in the gallery, -1 for none.
        weights: (Q, n).
    """
    total = descriptors.copy()
    # One neighbour of all descriptors at a time: all at once would need n times the memory.
    for column, weight in zip(found.T, weights.T, strict=True):
        rows = np.flatnonzero((column >= 0) & (weight > 0))
        total[rows] += weight[rows, None] * gallery[column[rows]]
    return l2_normalized(total)


def without_self(own: IntArray, found: IntArray, cosines: FloatArray) -> tuple[IntArray, FloatArray]:
    """Neighbours and cosines without the image itself, (Q, n) from (Q, n + 1).

    If copies of an image displace it from its own answers, the last answer is dropped.
    """
    order = np.argsort(found == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(found, order, 1), np.take_along_axis(cosines, order, 1)


def _nearest(
    gallery: FloatArray, queries: FloatArray, count: int, available: BoolArray | None
) -> tuple[IntArray, FloatArray]:
    """The first `count` gallery positions of each query and their cosines, (Q, count) each."""
    ranked = exact_ranking(gallery, queries, (np.empty(0, np.int64),) * len(queries), count, available)
    return ranked.top_k, ranked.scores

"""Database-side augmentation: each gallery descriptor drawn towards its neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from src.retrieval.post.expansion import alpha_weights, check_expansion, unlabelled, with_neighbours
from src.retrieval.post.rows import assembled, chunks
from src.retrieval.ranking import exact_ranking


class DatabaseAugmentation:
    """Each gallery image becomes the weighted mean of itself and its first gallery neighbours.

    After Turcot and Lowe (ICCV workshops 2009) and Arandjelovic and Zisserman (CVPR 2012). The image itself weighs 1
    and a neighbour cosine^alpha, as in alpha query expansion, where Gordo et al. (IJCV 2017) weight by rank.

    Every image is a query for the whole gallery: N^2 D multiplications, done once, hours for a million images on a CPU.

    Args:
        neighbours: how many other images are added to each.
        alpha: how much faster than the cosine a neighbour's weight falls. Neighbours with cosine <= 0 weigh nothing.

    Raises:
        InputError: neighbours below 1, alpha below 0.
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

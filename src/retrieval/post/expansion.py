"""Alpha query expansion, and the weighted sum over neighbours that it shares with database-side augmentation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.retrieval.post.rows import normalized
from src.retrieval.ranking import exact_ranking


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
    """Raise InputError for settings with no meaning."""
    if neighbours < 1 or not 0 <= alpha < float("inf"):
        raise InputError(f"{name} needs neighbours >= 1 and alpha >= 0, not neighbours={neighbours}, alpha={alpha}")


class AlphaQE:
    """Alpha query expansion: the query plus its first answers, each times cosine^alpha (Radenovic et al., TPAMI 2018).

    With alpha 0 it is average query expansion (Chum et al., ICCV 2007, without verification). A query that is itself in
    the gallery is its own first answer and so weighs 2.

    Args:
        neighbours: how many answers are added.
        alpha: how much faster than the cosine an answer's weight falls. Answers with cosine <= 0 weigh nothing.

    Raises:
        InputError: neighbours below 1, alpha below 0.
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

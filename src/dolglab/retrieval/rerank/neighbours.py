"""Re-ranking by descriptors refined from their neighbours, without local features."""

from __future__ import annotations

import numpy as np

from dolglab.contracts import BoolArray, FloatArray, IntArray, Shortlist
from dolglab.errors import UserError


def nearest(similarity: FloatArray, count: int) -> BoolArray:
    """Each image's `count` most similar other images, (k, k): row i marks those of image i.

    `similarity` is (k, k); ties are resolved by position. If there are fewer than `count` others, all are neighbours.

    >>> nearest(np.array([[1.0, 0.2, 0.9], [0.2, 1.0, 0.5], [0.9, 0.5, 1.0]], np.float32), 1).astype(int).tolist()
    [[0, 0, 1], [0, 0, 1], [1, 0, 0]]
    """
    k = len(similarity)
    count = min(count, k - 1)
    if count < 1:
        return np.zeros((k, k), np.bool_)
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    threshold = np.partition(others, k - count, axis=1)[:, k - count, None]
    above, equal = others > threshold, others == threshold
    room = count - above.sum(1, keepdims=True)
    return above | (equal & (np.cumsum(equal, axis=1) <= room))


def refined(descriptors: FloatArray, neighbours: int, beta: float) -> FloatArray:
    """Each answer's weighted mean with its nearest answers, (k, D); weights are 1 for itself, beta max(cos, 0) for
    others.

    Not L2-normalised: an answer whose neighbours differ from one another becomes shorter, and scores less.
    """
    cosines = descriptors @ descriptors.T
    weights = np.where(nearest(cosines, neighbours), beta * np.maximum(cosines, 0), 0).astype(np.float32)
    return (descriptors + weights @ descriptors) / (1 + weights.sum(1, keepdims=True))


class Neighbours:
    """Orders answers by refined descriptors, after SuperGlobal's re-ranking (Shao et al., ICCV 2023).

    Each answer is refined by its nearest answers. The query is expanded to the element-wise maximum of the refined
    descriptors nearest to it. An answer's score is the mean of the products of its refined descriptor with the query
    and with the expanded query. Steps and defaults are those of the authors' published code, with two differences:
    cosines below 0 have weight 0, and an answer counts itself once even if there are copies of it.

    Args:
        depth: number of first answers that are refined; M in the paper.
        neighbours: number of nearest answers for refinement, and (plus one) for query expansion; K in the paper.
        beta: weight of a neighbour relative to the answer itself.

    Raises UserError for depth or neighbours below 1, beta below 0.
    """

    def __init__(self, depth: int = 400, neighbours: int = 9, beta: float = 0.15) -> None:
        if depth < 1 or neighbours < 1 or not 0 <= beta < float("inf"):
            raise UserError(
                f"rerank.depth and neighbours must be at least 1 and beta at least 0, not depth={depth}, "
                f"neighbours={neighbours}, beta={beta}"
            )
        self.depth = depth
        self.local = False
        self.neighbours = neighbours
        self.beta = beta

    def __call__(self, shortlist: Shortlist) -> IntArray:
        """The new order of the answers, (k,): a permutation, best first; ties keep their order."""
        if not len(shortlist):
            return np.empty(0, np.int64)
        answers = refined(shortlist.descriptors, self.neighbours, self.beta)
        direct = answers @ shortlist.query_descriptor
        nearest_ones = np.argsort(-direct, kind="stable")[: self.neighbours + 1]
        expanded = answers[nearest_ones].max(0)
        return np.argsort(-(direct + answers @ expanded) / 2, kind="stable").astype(np.int64)

    def config(self) -> dict[str, object]:
        return {"rerank": "neighbours", "depth": self.depth, "neighbours": self.neighbours, "beta": self.beta}

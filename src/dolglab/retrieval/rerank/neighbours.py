"""Re-ranking by descriptors refined from their neighbours, without local features."""

from __future__ import annotations

import numpy as np

from dolglab.contracts import BoolArray, FloatArray, IntArray, Shortlist
from dolglab.errors import UserError


def nearest(similarity: FloatArray, count: int) -> BoolArray:
    """Each image's `count` most similar others, (k, k): row i marks those of image i.

    `similarity` is (k, k); of equally similar images the first count. Fewer than `count` others are all neighbours.

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
    """Each answer's weighted mean with its nearest answers, (k, D): itself 1, the others beta max(cos, 0).

    Not L2-normalised: an answer whose neighbours differ from one another comes out shorter, and so scores less.
    """
    cosines = descriptors @ descriptors.T
    weights = np.where(nearest(cosines, neighbours), beta * np.maximum(cosines, 0), 0).astype(np.float32)
    return (descriptors + weights @ descriptors) / (1 + weights.sum(1, keepdims=True))


class Neighbours:
    """Orders answers by their refined descriptors, after SuperGlobal's re-ranking (Shao et al., ICCV 2023).

    Each answer is refined from its nearest answers; the query is expanded to the element-wise maximum of the refined
    descriptors nearest to it; an answer's score is the mean of its refined descriptor's products with the query and
    with the expanded query. These are the steps and defaults of the authors' published code. Ours: cosines below 0
    weigh nothing, and an answer counts itself once also among copies of it.

    Args:
        depth: how many first answers are refined; the paper's M.
        neighbours: how many nearest answers each is refined from, and the query (and one more) expanded from; its K.
        beta: how much a neighbour weighs beside the answer itself.

    Raises UserError for depth or neighbours below 1, beta below 0.
    """

    def __init__(self, depth: int = 400, neighbours: int = 9, beta: float = 0.15) -> None:
        if depth < 1 or neighbours < 1 or not 0 <= beta < float("inf"):
            raise UserError(
                f"rerank.depth and neighbours are at least 1 and beta is not negative, not depth={depth}, "
                f"neighbours={neighbours}, beta={beta}"
            )
        self.depth = depth
        self.local = False
        self.neighbours = neighbours
        self.beta = beta

    def __call__(self, shortlist: Shortlist) -> IntArray:
        """The new order of the answers, (k,): a permutation, best first; equals stay in their order."""
        if not len(shortlist):
            return np.empty(0, np.int64)
        answers = refined(shortlist.descriptors, self.neighbours, self.beta)
        direct = answers @ shortlist.query_descriptor
        nearest_ones = np.argsort(-direct, kind="stable")[: self.neighbours + 1]
        expanded = answers[nearest_ones].max(0)
        return np.argsort(-(direct + answers @ expanded) / 2, kind="stable").astype(np.int64)

    def config(self) -> dict[str, object]:
        return {"rerank": "neighbours", "depth": self.depth, "neighbours": self.neighbours, "beta": self.beta}

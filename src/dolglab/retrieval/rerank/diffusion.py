"""Diffusion on the graph of neighbours among a query's first answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import FloatArray, IntArray, Shortlist
from dolglab.errors import UserError
from dolglab.retrieval.rerank.neighbours import nearest


def affinity(descriptors: FloatArray, neighbours: int, gamma: float) -> tuple[IntArray, IntArray, NDArray[np.float64]]:
    """Rows, columns and values, (E,) each, of S, the symmetric graph of mutual neighbours among k images.

    A is max(cos, 0)^gamma for two images that are each among the other's nearest, else 0, and 0 on the diagonal;
    S = D^-1/2 A D^-1/2, where D has the row sums of A. `descriptors` are (k, D).
    """
    cosines = descriptors @ descriptors.T
    marked = nearest(cosines, neighbours)
    rows, columns = np.nonzero(marked & marked.T)
    values = np.maximum(cosines[rows, columns], 0).astype(np.float64) ** gamma
    # A high power of a small cosine may underflow to 0; images without neighbours have a row sum of 0.
    kept = values > 0
    rows, columns, values = rows[kept], columns[kept], values[kept]
    scales = np.sqrt(np.bincount(rows, values, len(descriptors)))
    return rows, columns, values / scales[rows] / scales[columns]


def source(cosines: FloatArray, neighbours: int, gamma: float) -> NDArray[np.float64]:
    """y, (k,): max(cos, 0)^gamma at the query's nearest images, else 0. `cosines` are to the query, (k,)."""
    first = np.argsort(-cosines, kind="stable")[:neighbours]
    first = first[cosines[first] > 0]
    y = np.zeros(len(cosines))
    y[first] = cosines[first].astype(np.float64) ** gamma
    return y


@dataclass(eq=False)
class Diffusion:
    """Orders answers by diffusion from the query over a graph of neighbours (Iscen et al., CVPR 2017).

    Solves (I - alpha S) f = y by conjugate gradients. The graph contains only the shortlist and is built for each
    query, so images beyond `depth` neither move up nor contribute. (The paper also truncates to the first answers, but
    uses a graph of the whole gallery.) Images that the diffusion does not reach follow in their old order.

    Args:
        depth: number of first answers in the graph.
        neighbours: number of nearest answers that an answer may be linked to; k in the paper.
        query_neighbours: number of nearest answers that the query is linked to; k_q in the paper.
        alpha: share that is passed on at each step, below 1.
        gamma: exponent of cosines.
        tolerance: largest residual of the solution, relative to y.
        iterations: largest number of steps.

    Raises UserError for a setting out of range.
    """

    depth: int = 1000
    neighbours: int = 50
    query_neighbours: int = 10
    alpha: float = 0.99
    gamma: float = 3.0
    tolerance: float = 1e-6
    iterations: int = 100
    local = False

    def __post_init__(self) -> None:
        if min(self.depth, self.neighbours, self.query_neighbours, self.iterations) < 1:
            raise UserError("rerank.depth, neighbours, query_neighbours and iterations must be at least 1")
        if not (0 <= self.alpha < 1 and self.gamma > 0 and self.tolerance > 0):
            raise UserError(
                f"diffusion needs 0 <= alpha < 1, gamma > 0 and tolerance > 0, not alpha={self.alpha}, "
                f"gamma={self.gamma}, tolerance={self.tolerance}"
            )

    def __call__(self, shortlist: Shortlist) -> IntArray:
        """The new order of the answers, (k,): a permutation, best first; ties keep their order."""
        reached = self.scores(shortlist.descriptors, shortlist.query_descriptor)
        return np.argsort(-np.maximum(reached, 0), kind="stable").astype(np.int64)

    def scores(self, descriptors: FloatArray, query: FloatArray) -> NDArray[np.float64]:
        """The solution f, (k,), for answers (k, D) and a query (D,)."""
        from scipy.sparse import csr_array, eye_array
        from scipy.sparse.linalg import cg

        y = source(descriptors @ query, self.query_neighbours, self.gamma)
        if not y.any():
            return y
        k = len(descriptors)
        rows, columns, values = affinity(descriptors, self.neighbours, self.gamma)
        system = eye_array(k, format="csr") - self.alpha * csr_array((values, (rows, columns)), shape=(k, k))
        return cg(system, y, rtol=self.tolerance, maxiter=self.iterations)[0]

    def config(self) -> dict[str, object]:
        decisive = ("depth", "neighbours", "query_neighbours", "alpha", "gamma")
        return {"rerank": "diffusion", **{name: getattr(self, name) for name in decisive}}

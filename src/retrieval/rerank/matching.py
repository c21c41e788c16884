"""Which local descriptors of two images belong together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

# Rows of `a` compared at a time: their cosines fit the cache.
CHUNK = 512


def mutual_matches(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], ratio: float = 1.0, least: float = -1.0
) -> Int[np.ndarray, "k 2"]:
    """Rows of `a` and `b` that are each other's nearest, (k, 2), in the order of `a`.

    Args:
        a, b: L2-normalised descriptors of any precision; equally near ones count in their order.
        ratio: of the distances to the nearest and the second nearest of `b`, at most so much (Lowe, IJCV 2004); 1 asks
            for nothing.
        least: least cosine of a match.
    """
    if not len(a) or not len(b):
        return np.empty((0, 2), np.int64)
    a, others = a.astype(np.float32), b.astype(np.float32).T
    nearest = np.empty(len(a), np.int64)
    best, second = np.empty((2, len(a)), np.float32)
    best_of_others = np.full(len(b), -np.inf, np.float32)
    for start in range(0, len(a), CHUNK):
        cosines = a[start : start + CHUNK] @ others
        at = slice(start, start + len(cosines))
        rows = np.arange(len(cosines))
        nearest[at] = cosines.argmax(1)
        best[at] = cosines[rows, nearest[at]]
        np.maximum(best_of_others, cosines.max(0), out=best_of_others)
        if ratio < 1:
            cosines[rows, nearest[at]] = -np.inf
            second[at] = cosines.max(1)
    # Values, and not positions, tell whether it is mutual: positions of the columns' maxima take ten times as long.
    kept = (best == best_of_others[nearest]) & (best >= least)
    if ratio < 1 and len(b) > 1:
        # The squared distance of two unit vectors is 2 - 2 cos.
        kept &= np.maximum(1 - best, 0) <= ratio**2 * np.maximum(1 - second, 0)
    found = np.flatnonzero(kept)
    # Of copies in `a`, the first.
    found = np.sort(found[np.unique(nearest[found], return_index=True)[1]])
    return np.stack([found, nearest[found]], 1)

"""Which images of a shortlist are neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def nearest(similarity: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """Each image's `count` most similar others, (k, k): row i marks those of image i.

    `similarity` is (k, k); of equally similar images the first count. Fewer than `count` others are all neighbours.
    """
    k = len(similarity)
    count = min(count, k - 1)
    if count < 1:
        return np.zeros((k, k), np.bool_)
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    least = np.partition(others, k - count, axis=1)[:, k - count, None]
    above, equal = others > least, others == least
    room = count - above.sum(1, keepdims=True)
    return above | (equal & (np.cumsum(equal, axis=1) <= room))

"""Which local descriptors of two images belong together."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int


def mutual_matches(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], ratio: float = 1.0, least: float = -1.0
) -> Int[np.ndarray, "k 2"]:
    """Rows of `a` and `b` that are each other's nearest, (k, 2), in the order of `a`.

    Args:
        a, b: L2-normalised descriptors; equally near ones count in their order.
        ratio: of the distances to the nearest and the second nearest of `b`, at most so much (Lowe, IJCV 2004); 1 asks
            for nothing.
        least: least cosine of a match.
    """
    if not len(a) or not len(b):
        return np.empty((0, 2), np.int64)
    cosines = torch.from_numpy(a.astype(np.float32)) @ torch.from_numpy(b.astype(np.float32)).T
    nearest, back = cosines.argmax(1), cosines.argmax(0)
    rows = torch.arange(len(a))
    best = cosines[rows, nearest]
    kept = (back[nearest] == rows) & (best >= least)
    if ratio < 1 and len(b) > 1:
        second = cosines.topk(2, dim=1).values[:, 1]
        # The squared distance of two unit vectors is 2 - 2 cos.
        kept &= (1 - best).clamp(min=0) <= ratio**2 * (1 - second).clamp(min=0)
    found = rows[kept]
    return torch.stack([found, nearest[kept]], dim=1).numpy()

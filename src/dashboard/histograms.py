"""How the cosines of a step lie."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 64
EDGES = np.linspace(-1, 1, BINS + 1)


def cosine_histograms(cosine: Tensor, at: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many cosines of targets, and of all others, lie in each of `BINS` equal parts of -1 to 1.

    Args:
        cosine: (b, c) of descriptors and class centres.
        at: (b,) the column of each target; -1 where there is none.
    """
    here = at >= 0
    target = _counts(cosine[here].gather(1, at[here].view(-1, 1)))
    return target, _counts(cosine) - target


def _counts(values: Tensor) -> NDArray[np.int64]:
    # torch.histc is refused on GPUs where only deterministic operations are allowed.
    places = ((values.float() + 1) * (BINS / 2)).long().clamp(0, BINS - 1)
    return torch.bincount(places.flatten(), minlength=BINS).cpu().numpy()

"""Names by the votes of neighbours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Votes(NamedTuple):
    """What neighbours say: (n,) names, and of each the cosine and the key of the nearest photo that has it."""

    names: NDArray[np.int64]
    scores: NDArray[np.float32]
    nearest: NDArray[np.int64]


def vote(cosines: NDArray[np.float32], keys: NDArray[np.int64], names: NDArray[np.int64]) -> Votes:
    """The name whose cosines, added, are highest; of equals that of the nearest.

    All are (n, k), nearest first: cosines, keys and names of the neighbours. Negative cosines count for nothing.
    """
    same = names[:, :, None] == names[:, None, :]
    totals = (same * np.maximum(cosines, 0)[:, None, :]).sum(2)
    # All photos of one name have the same total, and the nearest of them stands first.
    best = totals.argmax(1)
    rows = np.arange(len(best))
    return Votes(names[rows, best], cosines[rows, best], keys[rows, best])


def without_itself(
    own: NDArray[np.int64], cosines: NDArray[np.float32], keys: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Neighbours, (n, k - 1), of photos that were found among them, (n, k).

    Args:
        own: (n,) the photos' own keys. One that is not found, behind many equal ones, gives way to the last.
    """
    itself = keys == own[:, None]
    itself[~itself.any(1), -1] = True
    shape = len(keys), keys.shape[1] - 1
    return cosines[~itself].reshape(shape), keys[~itself].reshape(shape)

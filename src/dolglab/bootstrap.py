"""Bootstrap confidence intervals (Efron, 1979) of a mean over queries, and of the paired difference of two means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

# One number per query, such as its average precision; None and NaN mark queries that are left out.
PerQuery = Sequence[float | None] | ArrayLike
DRAWS, LEVEL = 2000, 0.95
# Numbers in memory at a time, so that a hundred thousand queries need no more memory than seventy.
CHUNK = 4_000_000


def interval(
    values: PerQuery, draws: int = DRAWS, seed: int = 0, level: float = LEVEL, chunk: int = CHUNK
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of `values`, from `draws` draws.

    `chunk` numbers are in memory at a time. Returns NaN, NaN for fewer than two queries.

    >>> low, high = interval([0.2, 0.4, 0.6, 0.8])
    >>> 0.2 < low < 0.5 < high < 0.8
    True
    """
    # numpy converts None to NaN in a float array.
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    rows = max(1, chunk // len(values))
    counts = [min(rows, draws - start) for start in range(0, draws, rows)]
    means = [values[generator.integers(len(values), size=(n, len(values)))].mean(1) for n in counts]
    tail = 50 * (1 - level)
    low, high = np.percentile(np.concatenate(means), (tail, 100 - tail))
    return float(low), float(high)


def difference(first: PerQuery, second: PerQuery) -> tuple[float, float, float]:
    """The mean of `first` - `second` over the queries that count in both, and its interval.

    Both means use the same drawn queries (paired), so that hard queries do not blur the comparison. The interval is
    NaN, NaN for fewer than two queries. Raises ValueError for lists of different lengths.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if len(one) != len(other):
        raise ValueError(f"{len(one)} queries cannot be paired with {len(other)}")
    differences = one - other
    finite = differences[np.isfinite(differences)]
    return float(finite.mean()) if len(finite) else float("nan"), *interval(finite)

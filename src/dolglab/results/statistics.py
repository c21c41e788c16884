"""How often a method falls for a landmark that only looks like the query's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dolglab.contracts import Ranking

DRAWS, LEVEL = 2000, 0.95
# Numbers held at a time, so that a hundred thousand queries take no more memory than seventy.
CHUNK = 4_000_000


def interval(
    ap: Sequence[float | None] | ArrayLike, draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """The interval of the mean of `ap`, one number a query; None and NaN are queries that are left out.

    NaN, NaN for fewer than two queries, which say nothing of others.
    """
    values = _numbers(ap)
    return _percentiles(values[np.isfinite(values)], draws, seed, level)


def difference(
    first: Sequence[float | None] | ArrayLike,
    second: Sequence[float | None] | ArrayLike,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[float, float, float]:
    """The mean of `first` - `second` over the queries that count in both, and its interval.

    Both are drawn with the same queries (paired), so that hard queries do not blur the comparison. The interval is NaN,
    NaN for fewer than two queries. Raises ValueError for lists of different lengths.
    """
    one, other = _numbers(first), _numbers(second)
    if len(one) != len(other):
        raise ValueError(f"{len(one)} queries cannot be paired with {len(other)}")
    differences = one - other
    counted = differences[np.isfinite(differences)]
    mean = float(counted.mean()) if len(counted) else float("nan")
    return mean, *_percentiles(counted, draws, seed, level)


def resampled_means(values: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    """(draws,) means of as many values as there are, drawn with replacement."""
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(values))
    counts = [min(rows, draws - start) for start in range(0, draws, rows)]
    return np.concatenate([values[generator.integers(len(values), size=(n, len(values)))].mean(1) for n in counts])


def _percentiles(values: NDArray[np.float64], draws: int, seed: int, level: float) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    tail = 50 * (1 - level)
    low, high = np.percentile(resampled_means(values, draws, seed), (tail, 100 - tail))
    return float(low), float(high)


def _numbers(ap: Sequence[float | None] | ArrayLike) -> NDArray[np.float64]:
    # numpy reads None as NaN where it is asked for floats.
    return np.asarray(ap, dtype=np.float64)


FIRST = 10


def lookalikes(ranking: Ranking) -> dict[str, float] | None:
    """Wrong answers among a query's first ten, and those whose landmark is of the query's family: means a query.

    Wrong is what the ground truth names neither positive nor junk. Returns {"wrong", "siblings"}; None where families
    are not known.
    """
    benchmark = ranking.benchmark
    families, truth = benchmark.families, benchmark.ground_truth
    if families is None:
        return None
    wrong_ones, siblings = 0, 0
    for query, image in enumerate(benchmark.queries.tolist()):
        head = ranking.top[query, :FIRST]
        named = np.concatenate([truth.easy[query], truth.hard[query], truth.junk[query], [-1, image]])
        wrong = head[~np.isin(head, named)]
        wrong_ones += len(wrong)
        siblings += int(np.sum(families[wrong] == families[image])) if families[image] else 0
    queries = len(benchmark.queries)
    return {"wrong": wrong_ones / queries, "siblings": siblings / queries}

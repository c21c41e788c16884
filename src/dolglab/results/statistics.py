"""How sure a figure is (bootstrap intervals over the queries), and how often a method falls for a look-alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from dolglab.contracts import Ranking

# Average precision, a number a query; None and NaN are queries that are left out.
AP = Sequence[float | None] | ArrayLike
DRAWS, LEVEL = 2000, 0.95
# Numbers held at a time, so that a hundred thousand queries take no more memory than seventy.
CHUNK = 4_000_000
LOOKALIKE_ANSWERS = 10


def interval(
    ap: AP, draws: int = DRAWS, seed: int = 0, level: float = LEVEL, chunk: int = CHUNK
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of `ap`, from so many draws; `chunk` numbers are held at a time.

    NaN, NaN for fewer than two queries, which say nothing of others.

    >>> low, high = interval([0.2, 0.4, 0.6, 0.8])
    >>> 0.2 < low < 0.5 < high < 0.8
    True
    """
    # numpy reads None as NaN where it is asked for floats.
    values = np.asarray(ap, np.float64)
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


def difference(first: AP, second: AP) -> tuple[float, float, float]:
    """The mean of `first` - `second` over the queries that count in both, and its interval.

    Both are drawn with the same queries (paired), so that hard queries do not blur the comparison. The interval is NaN,
    NaN for fewer than two queries. Raises ValueError for lists of different lengths.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if len(one) != len(other):
        raise ValueError(f"{len(one)} queries cannot be paired with {len(other)}")
    differences = one - other
    finite = differences[np.isfinite(differences)]
    return float(finite.mean()) if len(finite) else float("nan"), *interval(finite)


def lookalikes(ranking: Ranking) -> dict[str, float] | None:
    """Wrong answers among a query's first ten, and those whose landmark is of the query's family: means a query.

    Wrong is what the ground truth names neither positive nor junk. Returns {"wrong", "siblings"}; None where families
    are not known.
    """
    benchmark = ranking.benchmark
    families, truth = benchmark.families, benchmark.ground_truth
    if families is None:
        return None
    total, siblings = 0, 0
    for query, image in enumerate(benchmark.queries.tolist()):
        answers = ranking.top[query, :LOOKALIKE_ANSWERS]
        right = np.concatenate([truth.easy[query], truth.hard[query], truth.junk[query], [-1, image]])
        wrong = answers[~np.isin(answers, right)]
        total += len(wrong)
        siblings += int(np.sum(families[wrong] == families[image])) if families[image] else 0
    queries = len(benchmark.queries)
    return {"wrong": total / queries, "siblings": siblings / queries}

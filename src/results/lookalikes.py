"""How often a method falls for a landmark that only looks like the query's."""

from __future__ import annotations

import numpy as np

from src.contracts import Ranking

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

"""How often a method falls for a landmark that only looks like the query's."""

from __future__ import annotations

import numpy as np

from src.contracts import Ranking

FIRST = 10


def lookalikes(ranking: Ranking) -> float | None:
    """Of the wrong answers among every query's first ten, the share whose landmark is of the query's family.

    Wrong is what the ground truth names neither positive nor junk. None where families are not known, or nothing is
    wrong.
    """
    families, truth = ranking.benchmark.families, ranking.benchmark.ground_truth
    if families is None:
        return None
    siblings: list[bool] = []
    for query, image in enumerate(ranking.benchmark.queries.tolist()):
        head = ranking.top[query, :FIRST]
        named = np.concatenate([truth.easy[query], truth.hard[query], truth.junk[query], [-1, image]])
        wrong = head[~np.isin(head, named)]
        siblings += (families[wrong] == families[image]).tolist() if families[image] else [False] * len(wrong)
    return float(np.mean(siblings)) if siblings else None

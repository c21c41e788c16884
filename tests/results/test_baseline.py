"""The line about a run's gain over its baseline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dolglab.contracts import Scores
from dolglab.results.card import gain_line


def ranking_of(make_ranking, ap):
    ranking = make_ranking(difficulties=("medium",))
    benchmark = replace(ranking.benchmark, queries=np.arange(len(ap)))
    medium = Scores(map=float(np.nanmean(ap)), ap=np.array(ap), mp_at_k=np.array([1.0, 1.0]))
    return replace(ranking, benchmark=benchmark, evaluation={"medium": medium})


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            [0.2, 0.3, 0.4],
            [0.3, 0.4, 0.5],
            "Better than it on toy: mAP 30.00 -> 40.00 %, +10.00 points (95 % interval +10",
        ),
        ([0.2, 0.9, 0.4], [0.9, 0.2, 0.5], "Perhaps better (it may be chance) than it on toy: mAP 50.00 -> 53.33 %"),
        ([0.5, 0.5], [0.5, 0.5], "Not better than it on toy: mAP 50.00 -> 50.00 %, +0.00 points"),
        ([0.5, 0.6], [0.5, 0.5], "Not better than it on toy: mAP 55.00 -> 50.00 %, -5.00 points"),
        ([0.5], [0.6], "+10.00 points (no interval, 1 queries)"),
    ],
)
def test_the_gain_is_printed_with_its_interval(make_ranking, before, after, said):
    assert said in gain_line("it", ranking_of(make_ranking, before), ranking_of(make_ranking, after))

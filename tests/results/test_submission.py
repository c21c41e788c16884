"""GLDv2's submissions and table columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dolglab.contracts import Evaluation, Measure, Ranking, Scores
from dolglab.data.gldv2_benchmarks import GLDv2Recognition, GLDv2Retrieval
from dolglab.results.card import make_card
from dolglab.results.comparison_tables import summarize
from dolglab.results.table_formats import to_markdown

MakeRanking = Callable[..., Ranking]
USAGES = np.array(["public", "private"])
RETRIEVAL = GLDv2Retrieval(USAGES)
RECOGNITION = GLDv2Recognition(USAGES, np.zeros(8, np.int64), (frozenset({0}),) * 2, 5)


@pytest.fixture
def gldv2_ranking(make_ranking: MakeRanking) -> Callable[..., Ranking]:
    def make(measure: Measure) -> Ranking:
        ranking = make_ranking()
        benchmark = replace(ranking.benchmark, measure=measure, difficulties=("public", "private"))
        nothing = {"ap": np.array([0.5, np.nan]), "mp_at_k": np.empty(0)}
        evaluation: Evaluation = {"public": Scores(map=0.25, **nothing), "private": Scores(map=0.125, **nothing)}
        top = np.array([[1, 0, 2], [-1, -1, -1]])
        return replace(ranking, benchmark=benchmark, evaluation=evaluation, kappas=(), top=top)

    return make


def test_retrieval_names_images_best_first(gldv2_ranking: Callable[..., Ranking]) -> None:
    assert RETRIEVAL.submission(gldv2_ranking(RETRIEVAL)) == "id,images\nimage_0,image_1 image_0 image_2\nimage_9,\n"


def test_recognition_names_a_landmark_and_its_score(gldv2_ranking: Callable[..., Ranking]) -> None:
    ranking = replace(gldv2_ranking(RECOGNITION), answers=((0, 8815, 1.23456789012),))
    assert RECOGNITION.submission(ranking) == "id,landmarks\nimage_0,8815 1.23456789\nimage_9,\n"


def test_columns_name_a_measure_other_than_map(gldv2_ranking: Callable[..., Ranking]) -> None:
    rankings = [gldv2_ranking(RECOGNITION)]
    card = make_card(name="run", method="DOLG", rankings=rankings, protocol={}, checkpoint=None, config={})
    table = to_markdown([summarize([card])])
    assert "| method | toy public GAP | toy private GAP |\n" in table
    assert "| DOLG | 25.00 | 12.50 |\n" in table

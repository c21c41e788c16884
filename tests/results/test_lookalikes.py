from dataclasses import replace

import numpy as np

from dolglab.results.card import lookalikes


def test_wrong_answers_and_siblings_are_counted_per_query(make_ranking):
    """Image 4 is wrong for the first query, and 6, 7 and 1 for the second; 4 and 6 are of the query's family."""
    ranking = make_ranking()
    families = np.array(["a", "a", "a", "a", "a", "b", "b", "c", "", "b"])
    known = replace(ranking, benchmark=replace(ranking.benchmark, families=families))
    assert lookalikes(known) == {"wrong": 2.0, "siblings": 1.0}
    assert lookalikes(ranking) is None


def test_images_without_a_family_are_not_siblings(make_ranking):
    ranking = make_ranking()
    unknown = replace(ranking, benchmark=replace(ranking.benchmark, families=np.array([""] * 10)))
    assert lookalikes(unknown) == {"wrong": 2.0, "siblings": 0.0}


def test_missing_answers_are_not_wrong(make_ranking):
    ranking = make_ranking()
    families = np.array(["a"] * 10)
    short = replace(ranking, benchmark=replace(ranking.benchmark, families=families), top=np.array([[4, -1], [4, -1]]))
    assert lookalikes(short) == {"wrong": 0.5, "siblings": 0.5}

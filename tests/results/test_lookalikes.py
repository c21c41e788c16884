from dataclasses import replace

import numpy as np

from dolglab.results.card import lookalikes


def test_wrong_answers_and_siblings_among_them_are_counted_a_query(make_ranking):
    """Image 4 is wrong for the first query, and 6, 7 and 1 for the second; 4 and 6 are of the query's family."""
    ranking = make_ranking()
    families = np.array(["a", "a", "a", "a", "a", "b", "b", "c", "", "b"])
    known = replace(ranking, benchmark=replace(ranking.benchmark, families=families))
    assert lookalikes(known) == {"wrong": 2.0, "siblings": 1.0}
    assert lookalikes(ranking) is None


def test_images_of_no_family_are_no_siblings(make_ranking):
    ranking = make_ranking()
    unknown = replace(ranking, benchmark=replace(ranking.benchmark, families=np.array([""] * 10)))
    assert lookalikes(unknown) == {"wrong": 2.0, "siblings": 0.0}


def test_the_answers_that_a_search_did_not_give_are_not_wrong(make_ranking):
    ranking = make_ranking()
    families = np.array(["a"] * 10)
    short = replace(ranking, benchmark=replace(ranking.benchmark, families=families), top=np.array([[4, -1], [4, -1]]))
    assert lookalikes(short) == {"wrong": 0.5, "siblings": 0.5}

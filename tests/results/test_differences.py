"""Differences between rows, with intervals."""

from dataclasses import replace

import numpy as np
import pytest

from dolglab.bootstrap import difference
from dolglab.data.gldv2_benchmarks import GLDv2Recognition
from dolglab.errors import UserError
from dolglab.results.comparison_tables import difference_table
from dolglab.results.tables import Cell, Footnotes


@pytest.fixture
def table_of():
    def make(cards, against=None):
        return difference_table(cards, [Cell(card["method"]) for card in cards], Footnotes(), against)

    return make


@pytest.fixture
def measured(make_card_of, make_ranking):
    def make(method, *ap, digest="0" * 16, name="run"):
        ranking = make_ranking(difficulties=("medium",), digest=digest)
        ranking.evaluation["medium"].update(ap=np.array(ap), map=float(np.nanmean(ap)))
        return make_card_of(method, ranking, name=name)

    return make


def texts(table):
    return {heading.text: [(cell.text, cell.below) for cell in cells] for heading, cells in table.rows}


def signed(value, decimals):
    return f"{100 * value:+.{decimals}f}".replace("-", "−")  # noqa: RUF001


def test_all_are_compared_with_the_best(measured, table_of):
    best, other = [0.9, 0.5, 0.8, 0.6], [0.7, 0.6, 0.3, 0.5]
    table = table_of([measured("A", *other), measured("B", *best), measured("C", *best)])
    mean, low, high = difference(other, best)
    assert table.title == "Difference to the best of each column, percentage points"
    assert texts(table) == {
        "A": [(signed(mean, 2), f"{signed(low, 1)} to {signed(high, 1)}")],
        "B": [("best", "")],
        "C": [("0.00", "0.0 to 0.0")],
    }


def test_rows_are_compared_with_a_chosen_one(measured, table_of):
    cards = [measured("A", 0.1, 0.2, name="run/a"), measured("B", 0.5, 0.4, name="run/b")]
    for against in ("A", "run/a"):
        table = table_of(cards, against)
        assert table.title == "Difference to A, percentage points"
        assert texts(table)["A"] == [("reference", "")]
        assert texts(table)["B"][0][0] == "+30.00"


@pytest.mark.parametrize(("against", "reason"), [("nobody", "no row"), ("A", "2 rows")])
def test_against_must_name_one_row(measured, table_of, against, reason):
    cards = [measured("A", 0.1, 0.2, name="run/a"), measured("A", 0.5, 0.4, name="run/b")]
    with pytest.raises(UserError, match=f"against={against} .*{reason}.*run/a, run/b"):
        table_of(cards, against)


def test_different_contents_or_queries_are_not_paired(measured, table_of):
    assert not table_of([measured("A", 0.1, 0.2), measured("B", 0.5, 0.4, digest="1" * 16)]).columns
    assert not table_of([measured("A", 0.1, 0.2), measured("B", 0.5, 0.4, 0.3)]).columns
    table = table_of([measured("A", 0.1, 0.2), measured("B", 0.5, 0.4, 0.3), measured("C", 0.3, 0.4, 0.2)])
    assert texts(table)["A"] == [("–", "")]  # noqa: RUF001
    assert texts(table)["B"] == [("best", "")]


def test_one_query_has_a_difference_without_an_interval(measured, table_of):
    table = table_of([measured("A", 0.1, np.nan), measured("B", 0.5, np.nan)])
    assert texts(table)["A"] == [("−40.00", "–")]  # noqa: RUF001


def test_a_single_row_and_gap_have_no_differences(measured, table_of, make_card_of, make_ranking):
    assert not table_of([measured("A", 0.1, 0.2)]).columns
    assert not table_of([measured("A", 0.1, 0.2)], "A").columns
    ranking = make_ranking()
    measure = GLDv2Recognition(np.array(["public"] * 2), np.zeros(8, np.int64), (frozenset({0}),) * 2, 5)
    ranking = replace(ranking, benchmark=replace(ranking.benchmark, measure=measure))
    assert not table_of([make_card_of("A", ranking), make_card_of("B", ranking)]).columns


def test_columns_without_a_pair_are_left_out(make_card_of, make_ranking, table_of):
    cards = [make_card_of("A", make_ranking(), make_ranking("other")), make_card_of("B", make_ranking())]
    assert table_of(cards).groups == [("toy", 3)]
    assert table_of(cards, "B").groups == [("toy", 3)]

"""Tables in a terminal and in Markdown."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from dolglab.bootstrap import difference, interval
from dolglab.contracts import BadImage
from dolglab.data.gldv2_benchmarks import GLDv2Recognition
from dolglab.results.comparison_tables import leader_lines, summarize
from dolglab.results.table_formats import print_tables, to_markdown
from dolglab.results.tables import row_names


@pytest.fixture
def two(make_card_of, make_ranking):
    protocol = {"scales": [0.70710678, 1.0], "resize": "released", "image_size": 1024, "selection": {"val": "1" * 16}}
    first = make_card_of("DOLG", make_ranking(), make_ranking("one", difficulties=("medium",)), **protocol)
    second = make_card_of(
        "GeM",
        make_ranking(maps=(0.95, 0.75, 0.4), bad=(BadImage("a", "b"),)),
        **(protocol | {"selection": {"toy": "0123456789abcdef"}}),
    )
    return [first, second]


def with_ap(ranking, *ap):
    for scores in ranking.evaluation.values():
        scores["ap"] = np.array(ap)
        scores["map"] = float(np.nanmean(ap))
    return ranking


def test_markdown_equals_the_expected_text(two):
    assert (
        to_markdown([summarize(two)])
        == """\
Medium mAP on toy: DOLG (75.00 %) and GeM (75.00 %) are equal.

mAP on one: 75.00 % by DOLG.

**Mean average precision, %**

| method | toy easy | toy medium | toy hard | one mAP |
| --- | ---: | ---: | ---: | ---: |
| DOLG [1] | 90.00 (–) | **75.00** (–) | **50.00** (–) | 75.00 (–) |
| GeM [2] | **95.00** (–) [3,4] | **75.00** (–) [3,4] | 40.00 (–) [3,4] | – |

**Difference to the best of each column, percentage points**

| method | toy easy | toy medium | toy hard |
| --- | ---: | ---: | ---: |
| DOLG [1] | −5.00 (–) | best | best |
| GeM [2] | best [3,4] | 0.00 (–) [3,4] | −10.00 (–) [3,4] |

**Mean precision at k on toy, %**

| method | easy @1 | easy @5 | medium @1 | medium @5 | hard @1 | hard @5 |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| DOLG [1] | **100.0** | **62.5** | **100.0** | **62.5** | **100.0** | **62.5** |
| GeM [2] | **100.0** [3,4] | **62.5** [3,4] | **100.0** [3,4] | **62.5** [3,4] | **100.0** [3,4] | **62.5** [3,4] |

**Mean precision at k on one, %**

| method | @1 | @5 |
| --- | ---: | ---: |
| DOLG [1] | 100.0 | 62.5 |
| GeM [2] | – | – |

[1] selection val

[2] selection toy

[3] 1 image skipped

[4] selected on this set

Protocol, the same in all rows: crop pil; scales 0.7071, 1; resize released; image size 1024.

Each mAP has a 95 % interval: percentile bootstrap over the queries, 2,000 draws.

Differences are paired by query. If the interval of a difference contains 0, it may be due to chance.

toy: 2 queries, 8 gallery images, digest 0123456789ab.

one: 2 queries, 8 gallery images, digest 0123456789ab.
"""  # noqa: RUF001
    )


def test_each_map_has_its_interval(make_card_of, make_ranking):
    ap = [0.2, 0.9, 0.4, 0.6]
    low, high = interval(ap)
    (table, *_) = summarize([make_card_of("A", with_ap(make_ranking(), *ap))]).tables
    ((_, cells),) = table.rows
    assert [(cell.text, cell.below) for cell in cells] == [("52.50", f"{100 * low:.1f}–{100 * high:.1f}")] * 3  # noqa: RUF001


def test_a_line_names_the_best_with_lead_and_interval(make_card_of, make_ranking):
    low, high = ([0.2, 0.3, 0.4, 0.1], [0.9, 0.8, 0.9, 0.7])
    rows = [("A", low), ("B", high), ("C", low[::-1])]
    cards = [make_card_of(name, with_ap(make_ranking(), *ap)) for name, ap in rows]
    (line,) = leader_lines(cards)
    assert line.startswith(
        "Medium mAP on toy: B (82.50 %) is best, ahead of A (25.00 %): +57.50 points, 95 % interval +"
    )
    assert line.endswith(" 4 queries.")
    (line,) = leader_lines([cards[0], cards[2]])
    assert "A (25.00 %) and C (25.00 %) cannot be told apart: 0.00 points" in line


def test_the_conclusion_depends_on_the_interval(make_card_of, make_ranking):
    # Ahead on the mean, but by one query of four.
    cards = [
        make_card_of("A", with_ap(make_ranking(), 0.9, 0.3, 0.4, 0.2)),
        make_card_of("B", with_ap(make_ranking(), 0.1, 0.4, 0.5, 0.3)),
    ]
    mean, low, high = difference([0.9, 0.3, 0.4, 0.2], [0.1, 0.4, 0.5, 0.3])
    assert low < 0 < mean < high
    (line,) = leader_lines(cards)
    assert "cannot be told apart" in line
    assert f"{100 * mean:+.2f} points, 95 % interval −{-100 * low:.2f} to {100 * high:+.2f}" in line  # noqa: RUF001


def test_one_query_has_no_interval_and_one_method_no_difference(make_card_of, make_ranking):
    cards = [make_card_of(name, with_ap(make_ranking(), ap)) for name, ap in (("A", 0.4), ("B", 0.9))]
    (line,) = leader_lines(cards)
    assert "B (90.00 %) is ahead of A (40.00 %): +50.00 points, with too few queries for an interval" in line
    (line,) = leader_lines([make_card_of("A", with_ap(make_ranking(), 0.2, 0.4))])
    assert line == "Medium mAP on toy: 30.00 % by A, 95 % interval 20.0 to 40.0."
    assert leader_lines([make_card_of("A")]) == []


def test_runs_with_different_queries_are_not_paired(make_card_of, make_ranking):
    cards = [make_card_of("A", with_ap(make_ranking(), 0.4)), make_card_of("B", with_ap(make_ranking(), 0.2, 0.9))]
    (line,) = leader_lines(cards)
    assert "interval" in line
    assert "points" not in line


def test_gap_has_no_interval(make_card_of, make_ranking):
    ranking = with_ap(make_ranking(difficulties=("medium",)), 0.2, 0.8)
    measure = GLDv2Recognition(np.array(["public"] * 2), np.zeros(8, np.int64), (frozenset({0}),) * 2, 5)
    ranking = replace(ranking, benchmark=replace(ranking.benchmark, measure=measure))
    summary = summarize([make_card_of("A", ranking), make_card_of("B", ranking)])
    assert [table.title for table in summary.tables][:2] == [
        "Mean average precision, %",
        "Mean precision at k on toy, %",
    ]
    assert [cells[0].below for _, cells in summary.tables[0].rows] == ["", ""]
    assert "not a mean over queries" in summary.lines[-2]


def test_one_row_has_no_best_and_a_plain_protocol_line(make_card_of, make_ranking):
    text = to_markdown([summarize([make_card_of("DOLG", make_ranking(), scales=[1.0])])])
    assert "| DOLG | 90.00 (–) | 75.00 (–) | 50.00 (–) |" in text  # noqa: RUF001
    assert "Protocol: crop pil; scales 1.\n" in text
    assert "Difference" not in text


def test_sets_with_one_name_and_different_contents_have_separate_columns(make_card_of, make_ranking):
    cards = [make_card_of("A", make_ranking()), make_card_of("B", make_ranking(digest="fedcba9876543210"))]
    (table, *_) = summarize(cards).tables
    assert table.groups == [("toy (012345)", 3), ("toy (fedcba)", 3)]


def test_methods_with_one_name_get_the_run_and_then_a_number(make_card_of):
    cards = [make_card_of("DOLG", name=name) for name in ("seed0", "seed1", "seed1")]
    assert row_names(cards) == ["DOLG (seed0)", "DOLG (seed1) #1", "DOLG (seed1) #2"]


def test_a_figure_left_out_is_a_dash_and_never_the_best(make_card_of, make_ranking):
    cards = [make_card_of(m, make_ranking(maps=(easy, 0.5, 0.5))) for m, easy in (("A", float("nan")), ("B", 0.1))]
    (_, first), (_, second) = summarize(cards).tables[0].rows
    assert (first[0].text, first[0].best, first[0].below) == ("–", False, "")  # noqa: RUF001
    assert (second[0].text, second[0].best) == ("10.00", False)


def test_notes_of_a_ranking_are_at_all_its_figures(make_card_of, make_ranking):
    noted = replace(make_ranking(), notes=("oracle shortlist", "subset: 39 of 6,322 gallery images"))
    summary = summarize([make_card_of("A", make_ranking()), make_card_of("B", noted)])
    assert list(summary.notes.values()) == ["oracle shortlist", "subset: 39 of 6,322 gallery images"]
    for table in summary.tables:
        (_, plain), (_, marked) = table.rows
        assert {cell.notes for cell in plain} == {()}
        assert {cell.notes for cell in marked} == {("1", "2")}


def test_costs_and_lookalikes_have_separate_tables(make_card_of, make_ranking):
    costs = {"image_seconds": 0.0345, "query_seconds": 1.25, "image_bytes": 2048.0}
    cards = [
        make_card_of("A", replace(make_ranking(), costs=costs)),
        make_card_of("B", replace(make_ranking(), costs={"image_bytes": 512})),
        make_card_of("C", make_ranking()),
    ]
    cards[1]["benchmarks"][0]["lookalikes"] = {"wrong": 2.5, "siblings": 0.75}
    cards[2]["benchmarks"][0]["lookalikes"] = {"wrong": 0.0, "siblings": 0.0}
    text = to_markdown([summarize(cards)])
    assert (
        """\
**What it costs**

| method | toy ms per image | toy ms per query | toy bytes per image |
| --- | ---: | ---: | ---: |
| A | 34.5 | 1,250 | 2,048 |
| B | – | – | 512 |
| C | – | – | – |

**Wrong answers among the first ten, per query, and look-alikes among them**

| method | toy wrong | toy look-alikes | toy share, % |
| --- | ---: | ---: | ---: |
| A | – | – | – |
| B | 2.50 | 0.75 | 30.0 |
| C | 0.00 | 0.00 | – |
"""  # noqa: RUF001
        in text
    )


@pytest.mark.parametrize("width", [20, 80, 500])
@pytest.mark.parametrize("terminal", [False, True])
def test_tables_are_complete_in_narrow_consoles(two, width, terminal):
    two[0]["method"] = "DOLG [bold] " + "x" * 60
    file = io.StringIO()
    print_tables([summarize(two)], Console(file=file, width=width, force_terminal=terminal, color_system=None))
    lines = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    if not terminal:
        assert f"{two[0]['method']} [1] 90.00 75.00 50.00 75.00" in lines
        assert "GeM [2] 95.00 [3,4] 75.00 [3,4] 40.00 [3,4] –" in lines  # noqa: RUF001
        assert f"{two[0]['method']} [1] −5.00 best best" in lines  # noqa: RUF001
    assert "[2] selection toy" in lines
    assert "…" not in file.getvalue()
    assert "Mean precision at k" not in file.getvalue()


def test_names_are_escaped_in_markdown(make_card_of, make_ranking):
    assert "| a\\|b &lt;script> |" in to_markdown([summarize([make_card_of("a|b <script>", make_ranking())])])

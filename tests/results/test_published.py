"""The published rows, compared with the table of facts."""

import re

import pytest

from dolglab.results.comparison_tables import summarize
from dolglab.results.published import PAPER_SETS, ROWS, SOURCES, paper_rows, published_summary
from dolglab.results.table_formats import to_markdown


@pytest.fixture
def facts(shared_data):
    """Method, Medium and Hard figures, and source of each row in the table of facts."""
    file = shared_data.parent / "facts.md"
    if not file.exists():
        pytest.skip("../shared/facts.md is not here")
    section = file.read_text().split("## 4.")[1].split("## 5.")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| .*\d\d\.\d\d", line)]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]


def test_every_row_equals_the_facts(facts):
    rows = paper_rows()
    assert len(rows) == len(facts) == 19
    for row, (method, medium, hard, source) in zip(rows, facts, strict=True):
        for difficulty, text in (("medium", medium), ("hard", hard)):
            figures = [row.figures[name][difficulty] for name in PAPER_SETS]
            assert figures == list(map(float, text.split("/"))), method
        assert re.sub(r"^\([ABC]\) |,.*$", "", row.method) in method
        assert ("(" in row.method) == bool(re.search(r"\([ABC]\)", method)), method
        assert "(" not in row.method or row.method[:3] in method
        assert {"paper": "paper table 1", "README": "released README [C]", "issue [I]": "[I]"}[row.source] == source
        cropped = re.search(r"queries (not )?cropped", row.method)
        assert bool(cropped) == ("cropped" in method), method
        assert not cropped or bool(cropped[1]) == ("not cropped" in method), method


def test_every_row_has_a_source_and_figures_in_percent():
    for row in ROWS:
        assert row.source in SOURCES
        assert row.kind in ("claimed", "remeasured")
        assert all(1 < value < 100 for by_difficulty in row.figures.values() for value in by_difficulty.values())


def test_figures_of_other_benchmarks_equal_the_facts(shared_data):
    file = shared_data.parent / "facts-benchmarks.md"
    if not file.exists():
        pytest.skip("../shared/facts-benchmarks.md is not here")
    stated = set(re.findall(r"\d+\.\d+", file.read_text()))
    others = [(name, v) for row in ROWS for name, own in row.figures.items() if name[0] != "r" for v in own.values()]
    assert len(others) == 25
    assert {str(value) for _, value in others} <= stated
    # A set with several names has its variant in the name.
    assert not {"nordland", "msls_val", "holidays", "ilias", "disc21"} & {name for name, _ in others}


def test_rows_with_one_name_are_distinguishable():
    (table,) = published_summary().tables
    printed = [(heading.text, cells[-1].text) for heading, cells in table.rows]
    assert len(set(printed)) == len(printed)


def test_sources_are_footnotes_and_the_best_published_row_is_marked():
    summary = published_summary()
    (table,) = summary.tables
    assert list(summary.notes.items()) == list(zip("abc", SOURCES.values(), strict=False))
    assert [sum(cell.best for cell in column) for column in zip(*(cells for _, cells in table.rows), strict=True)] == [
        *[1] * 8,
        0,
    ]
    assert table.groups == [("Medium", 4), ("Hard", 4), ("", 1)]


def test_published_rows_are_separate_from_measured_ones(make_card_of, make_ranking):
    cards = [make_card_of("A", make_ranking(maps=(0.99, 0.99, 0.99))), make_card_of("B", make_ranking())]
    measured, published = to_markdown([summarize(cards), published_summary()]).split("## Published, on ")
    assert "| A | **99.00** (–) |" in measured  # noqa: RUF001
    assert "R101-DELG" not in measured
    assert published.startswith("ROxford5k / RParis6k (not measured here)\n")
    assert "| CGD EffB3, distilled | **85.48** |" in published
    assert "issue [I] [c] |" in published
    assert "[c] quoted from an issue thread, not from a publication\n" in published

"""The files of a run."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dolglab.results.card import make_card
from dolglab.results.report import finish_run


@pytest.fixture
def full(make_ranking):
    """A re-ranked ranking with all optional fields."""
    return replace(
        make_ranking("a/b"),
        notes=("oracle shortlist",),
        stages={"rerank": "spatial"},
        costs={"image_seconds": 0.25},
        before=np.array([[0, 1, 2, 3, 4], [4, 6, 5, 7, 1]]),
        curves={"medium": np.linspace(1, 0, 101)},
    )


def card_of(method, rankings):
    return make_card(name="run", method=method, rankings=rankings, protocol={}, checkpoint=None, config={})


def finish(run, rankings, **options):
    return finish_run(run, card_of("DELG + SP", rankings), rankings, **options)


def files(run):
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


def test_a_run_writes_card_rankings_grids_figures_pictures_and_page(tmp_path, full, capsys):
    page = finish(tmp_path, [full], pictures=[("matches of query 1", b"\xff\xd8")])
    assert files(tmp_path) == [
        "answers/a_b.zip",
        "card.json",
        "figures/precision_and_recall_a_b.svg",
        "grids/a_b.jpg",
        "pictures/01.jpg",
        "pictures/titles.json",
        "rankings/a_b.json",
        "report.html",
        "worst/a_b.jpg",
    ]
    html = page.read_text()
    assert html.count("oracle shortlist") == 2
    assert 'alt="matches of query 1"' in html
    assert "Precision and recall, chart: a/b" in html
    assert "What it costs" in html
    printed = capsys.readouterr().out
    assert "[1] oracle shortlist" in printed
    assert "rerank spatial" in printed
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["benchmarks"][0]["stages"] == {"rerank": "spatial"}


def test_a_run_leaves_no_empty_folders(tmp_path, make_ranking):
    finish(tmp_path, [make_ranking()])
    assert files(tmp_path) == [
        "answers/toy.zip",
        "card.json",
        "grids/toy.jpg",
        "rankings/toy.json",
        "report.html",
        "worst/toy.jpg",
    ]


def test_the_baseline_is_compared(tmp_path, make_ranking, capsys):
    before = [make_ranking(maps=(0.5, 0.4, 0.3))]
    finish(tmp_path, [make_ranking(maps=(0.9, 0.8, 0.7))], baseline=(card_of("untrained ImageNet GeM", before), before))
    printed = capsys.readouterr().out
    assert printed.index("untrained ImageNet GeM") < printed.index("DELG + SP")
    assert "Difference to the best of each column" in printed
    assert (tmp_path / "baseline" / "card.json").exists()


def test_a_run_that_was_not_evaluated_has_a_page_and_no_table(tmp_path, capsys):
    finish(tmp_path, [])
    assert files(tmp_path) == ["card.json", "report.html"]
    assert capsys.readouterr().out == f"page: {tmp_path / 'report.html'}\n"

"""Figures again from kept ranks, and what was changed since."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dolglab.commands.report import main as report
from dolglab.errors import UserError
from dolglab.measures import ground_truth_ids_of, revisited_evaluation
from dolglab.results.card import make_card, read_card, write_card
from dolglab.results.report import finish_run
from dolglab.results.verification import figures_from_ranks, ranks_file, verify, write_ranks
from end_to_end.runs import config

# Gallery positions as two queries rank them; the truth is that of `make_ranking`.
ORDERS = np.array([[0, 3, 1, 7, 2, 4, 5, 6], [6, 4, 7, 0, 1, 2, 3, 5]])


@pytest.fixture
def ranking(make_ranking):
    """A ranking whose figures are those of its ranks."""
    found = make_ranking("a/b")
    truth = found.benchmark.ground_truth
    ranks = tuple(
        np.array([list(o).index(i) for i in ids]) for o, ids in zip(ORDERS, ground_truth_ids_of(truth), strict=True)
    )
    evaluation = revisited_evaluation(ORDERS, truth, kappas=(1, 5))
    return replace(found, evaluation=evaluation, kappas=(1, 5), ranks=dict.fromkeys(evaluation, ranks))


@pytest.fixture
def run(tmp_path, ranking):
    card = make_card(name="run", method="GeM", rankings=[ranking], protocol={}, checkpoint=None, config={})
    finish_run(tmp_path / "run", card, [ranking])
    return tmp_path / "run" / "card.json"


def edit(path, change):
    """Change a card and leave its digest."""
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


def test_the_figures_of_ranks_are_those_of_the_rankings(tmp_path, ranking):
    path = write_ranks(tmp_path, ranking)
    assert path == ranks_file(tmp_path, "a/b")
    found = figures_from_ranks(path, (1, 5))
    assert list(found) == ["easy", "medium", "hard"]
    for difficulty, scores in ranking.evaluation.items():
        assert found[difficulty]["map"] == scores["map"]
        np.testing.assert_array_equal(found[difficulty]["ap"], scores["ap"])
        np.testing.assert_array_equal(found[difficulty]["mp_at_k"], scores["mp_at_k"])


def test_a_card_that_was_left_alone_is_the_same(run, capsys):
    assert verify(run)
    assert capsys.readouterr().out.count(": same\n") == 3
    report(config("report", f"verify={run}"))


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card["benchmarks"][0]["map"].update(medium=0.999),
        lambda card: card["benchmarks"][0]["ap"]["hard"].__setitem__(0, 0.999),
        lambda card: card["benchmarks"][0]["mp_at_k"]["easy"].update({"5": 0.999}),
        lambda card: card.update(method="DOLG"),
    ],
)
def test_an_edited_card_is_not_even_with_a_digest_of_its_own(run, change, capsys):
    edit(run, change)
    with pytest.raises(UserError, match="edited"):
        read_card(run)
    with pytest.raises(SystemExit, match="1"):
        report(config("report", f"verify={run}"))
    renewed = read_card(run, edited=True)
    write_card(renewed, run)
    # A digest can be renewed by anyone; the rankings still say otherwise, of what is a figure.
    assert verify(run) == (renewed["method"] == "DOLG")


def test_several_cards_are_checked_at_once(tmp_path, run, ranking, capsys):
    card = make_card(name="other", method="GeM", rankings=[ranking], protocol={}, checkpoint=None, config={})
    finish_run(tmp_path / "other", card, [ranking])
    asked = config("report", f"verify='{tmp_path}/*/card.json'")
    report(asked)
    assert capsys.readouterr().out.count(": same\n") == 6
    edit(run, lambda card: card["benchmarks"][0]["map"].update(medium=0.999))
    with pytest.raises(SystemExit, match="1"):
        report(asked)
    assert f"{run}:\n" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [lambda kept: b"", lambda kept: kept[: len(kept) // 2], lambda kept: b"no archive"])
def test_files_that_hold_no_ranks_are_told(run, damage, capsys):
    file = ranks_file(run.parent, "a/b")
    file.write_bytes(damage(file.read_bytes()))
    assert not verify(run)
    assert "not checked" in capsys.readouterr().out


def test_damaged_or_missing_ranks_are_told(run, capsys):
    file = ranks_file(run.parent, "a/b")
    with np.load(file) as kept:
        arrays = dict(kept)
    np.savez(file, **{**arrays, "ranks_hard": arrays["ranks_hard"][1:]})
    assert not verify(run)
    file.unlink()
    assert not verify(run)
    assert capsys.readouterr().out.count("not checked") == 2


def test_a_card_is_checked_by_another_runs(tmp_path, run, ranking, capsys):
    again = make_card(name="again", method="GeM", rankings=[ranking], protocol={}, checkpoint=None, config={})
    other = write_card(again, tmp_path / "again.json")
    ranks_file(run.parent, "a/b").unlink()
    report(config("report", f"verify={run}", f"cards={other}"))
    with pytest.raises(UserError, match="several"):
        verify(run, [other, other])
    again["benchmarks"][0]["map"]["easy"] = 0.1
    write_card(again, other)
    assert not verify(run, [other])
    again["benchmarks"][0]["digest"] = "of other images"
    write_card(again, other)
    assert not verify(run, [other])
    assert "not there" in capsys.readouterr().out


def test_figures_of_other_rules_are_not_computed_by_those_of_revisited(tmp_path, ranking, capsys):
    whole = replace(
        ranking,
        benchmark=replace(ranking.benchmark, difficulties=("all",)),
        evaluation={"all": ranking.evaluation["medium"]},
        ranks={"all": ranking.ranks["medium"]},
    )
    card = make_card(name="run", method="GeM", rankings=[whole], protocol={}, checkpoint=None, config={})
    finish_run(tmp_path / "run", card, [whole])
    path = tmp_path / "run" / "card.json"
    capsys.readouterr()
    assert not verify(path)
    assert "NOT the same" not in capsys.readouterr().out
    assert verify(path, against=[path])

"""Verification of cards from stored rankings, and changes since."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dolglab.commands.report import main as report
from dolglab.contracts import Ranked
from dolglab.errors import UserError
from dolglab.measures import RevisitedMeasure, ground_truth_ids_of, revisited_evaluation
from dolglab.results.card import make_card, read_card, write_card
from dolglab.results.report import finish_run
from dolglab.results.stored_rankings import rankings_file, read_rankings, write_rankings
from dolglab.results.verification import verify
from end_to_end.runs import config

# Gallery positions as two queries rank them; the truth is that of `make_ranking`.
ORDERS = np.array([[0, 3, 1, 7, 2, 4, 5, 6], [6, 4, 7, 0, 1, 2, 3, 5]])


@pytest.fixture
def ranking(make_ranking):
    """A ranking whose figures follow from its ranks."""
    found = make_ranking("a/b")
    truth = found.benchmark.ground_truth
    wanted = ground_truth_ids_of(truth)
    ranks = tuple(np.array([list(o).index(i) for i in ids]) for o, ids in zip(ORDERS, wanted, strict=True))
    evaluation = revisited_evaluation(ORDERS, truth, kappas=(1, 5))
    ranked = Ranked(ORDERS, np.zeros(ORDERS.shape, np.float32), wanted, ranks)
    benchmark = replace(found.benchmark, measure=RevisitedMeasure((1, 5)))
    rankings = dict.fromkeys(evaluation, ranked)
    return replace(found, benchmark=benchmark, evaluation=evaluation, kappas=(1, 5), rankings=rankings)


@pytest.fixture
def run(tmp_path, ranking):
    card = make_card(name="run", method="GeM", rankings=[ranking], protocol={}, checkpoint=None, config={})
    finish_run(tmp_path / "run", card, [ranking])
    return tmp_path / "run" / "card.json"


def edit(path, change):
    """Change a card but keep its digest."""
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


def test_figures_from_ranks_equal_those_of_rankings(tmp_path, ranking):
    path = write_rankings(tmp_path, ranking)
    assert path == rankings_file(tmp_path, "a/b")
    found = read_rankings(path).figures.evaluation
    assert list(found) == ["easy", "medium", "hard"]
    for difficulty, scores in ranking.evaluation.items():
        assert found[difficulty]["map"] == scores["map"]
        np.testing.assert_array_equal(found[difficulty]["ap"], scores["ap"])
        np.testing.assert_array_equal(found[difficulty]["mp_at_k"], scores["mp_at_k"])


def test_an_unchanged_card_is_reproduced(run, capsys):
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
def test_an_edited_card_is_not_reproduced_even_with_a_new_digest(run, change, capsys):
    edit(run, change)
    with pytest.raises(UserError, match="edited"):
        read_card(run)
    with pytest.raises(SystemExit, match="1"):
        report(config("report", f"verify={run}"))
    renewed = read_card(run, edited=True)
    write_card(renewed, run)
    # Anyone can compute a new digest, but the rankings still give other figures.
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
def test_files_without_ranks_are_reported(run, damage, capsys):
    file = rankings_file(run.parent, "a/b")
    file.write_bytes(damage(file.read_bytes()))
    assert not verify(run)
    assert "not checked" in capsys.readouterr().out


def test_damaged_or_missing_ranks_are_reported(run, capsys):
    file = rankings_file(run.parent, "a/b")
    with np.load(file) as kept:
        arrays = dict(kept)
    np.savez(file, **{**arrays, "ranks.0": arrays["ranks.0"][1:]})
    assert not verify(run)
    file.unlink()
    assert not verify(run)
    assert capsys.readouterr().out.count("not checked") == 2


def test_a_card_is_checked_against_another_run(tmp_path, run, ranking, capsys):
    again = make_card(name="again", method="GeM", rankings=[ranking], protocol={}, checkpoint=None, config={})
    other = write_card(again, tmp_path / "again.json")
    rankings_file(run.parent, "a/b").unlink()
    report(config("report", f"verify={run}", f"cards={other}"))
    with pytest.raises(UserError, match="several"):
        verify(run, [other, other])
    again["benchmarks"][0]["map"]["easy"] = 0.1
    write_card(again, other)
    assert not verify(run, [other])
    again["benchmarks"][0]["digest"] = "of other images"
    write_card(again, other)
    assert not verify(run, [other])
    assert "missing" in capsys.readouterr().out


def test_rankings_of_another_run_are_reported(tmp_path, run, ranking, capsys):
    """Even if the figures are the same: two answers that are not in the ground truth are swapped."""
    heads = ORDERS.copy()
    heads[0, -2:] = heads[0, :-3:-1]
    other = replace(next(iter(ranking.rankings.values())), top_k=heads)
    write_rankings(run.parent, replace(ranking, rankings=dict.fromkeys(ranking.rankings, other)))
    assert not verify(run)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4
    assert str(rankings_file(run.parent, "a/b")) in said[0]
    assert all(line.endswith(": same") for line in said[1:])

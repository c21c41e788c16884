"""A study on disk: assignment of trials to processes, persistence, and the chart of trials."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from dolglab.errors import UserError
from dolglab.sweeps.study import Dimension, PruningWatch, SharedStudy, write_chart

SPACE = (Dimension("x", 0.0, 1.0), Dimension("kind", choices=("a", "b")))


def open_study(folder: Path, space=SPACE, train=("experiment=demo",), pruner=None) -> SharedStudy:
    sampler = partial(optuna.samplers.TPESampler, n_startup_trials=2)
    return SharedStudy(folder, space, train, sampler, pruner or optuna.pruners.NopPruner(), seed=3)


def values(study: SharedStudy, count: int) -> list[dict]:
    """The values of `count` trials, each scored by the distance of x from a half."""
    found = []
    for _ in range(count):
        trial = study.next(100)
        assert trial is not None
        found.append(dict(trial.params))
        study.done(trial, TrialState.COMPLETE, 1 - abs(trial.params["x"] - 0.5))
    return found


def test_a_resumed_study_equals_an_uninterrupted_one(tmp_path):
    whole = values(open_study(tmp_path / "whole"), 6)
    parts = [values(open_study(tmp_path / "parts"), 1) for _ in range(6)]
    assert [part for (part,) in parts] == whole
    assert len({trial["x"] for trial in whole}) == 6
    best = open_study(tmp_path / "parts").best
    assert best is not None
    assert best.params == min(whole, key=lambda trial: abs(trial["x"] - 0.5))


def test_a_study_has_the_requested_number_of_trials(tmp_path):
    study = open_study(tmp_path)
    trial = study.next(2)
    assert trial is not None
    study.done(trial, TrialState.FAIL)
    trial = study.next(2)
    assert trial is not None
    study.done(trial, TrialState.COMPLETE, 0.5)
    assert study.next(2) is None
    assert study.next(3) is not None


TAKE = """
import sys
sys.path[:0] = ["tests"]
from pathlib import Path
from sweeps.test_study import open_study
print(open_study(Path(sys.argv[1])).next(100).number, flush=True)
sys.stdin.read()
"""


@pytest.mark.process
def test_a_trial_belongs_to_one_process_until_it_ends(tmp_path):
    take = [sys.executable, "-W", "ignore", "-c", TAKE, str(tmp_path)]
    with subprocess.Popen(take, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "0"
        study = open_study(tmp_path)
        mine = study.next(100)
        assert mine is not None
        assert mine.number == 1
        study.done(mine, TrialState.COMPLETE, 0.1)
        other.kill()
        other.wait()
        taken = study.next(100)
        assert taken is not None
        assert taken.number == 0
        assert taken.params == study.trials[0].params
        study.done(taken, TrialState.COMPLETE, 0.2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2


def test_another_search_in_the_same_folder_is_refused(tmp_path):
    open_study(tmp_path)
    open_study(tmp_path)
    with pytest.raises(UserError, match=r"train.*experiment=demo"):
        open_study(tmp_path, train=())
    with pytest.raises(UserError, match=r"space"):
        open_study(tmp_path, SPACE[:1])


def metrics(path: Path, *maps: float) -> None:
    path.write_text("epoch,step,train/loss,val/medium\n" + "".join(f"{i},{i},1.0,{m}\n" for i, m in enumerate(maps)))


def test_a_trial_behind_the_others_is_pruned(tmp_path):
    study = open_study(tmp_path, pruner=optuna.pruners.MedianPruner(n_startup_trials=1))
    first = study.next(9)
    assert first is not None
    metrics(tmp_path / "first.csv", 0.5, 0.6)
    assert PruningWatch(study, first, tmp_path / "first.csv")() == ""
    study.done(first, TrialState.COMPLETE, 0.6)
    second = study.next(9)
    assert second is not None
    path = tmp_path / "second.csv"
    watch = PruningWatch(study, second, path)
    assert watch() == ""
    metrics(path, 0.55)
    assert watch() == ""
    assert watch() == ""
    # Resumed by another process, which must not report known values again.
    metrics(path, 0.55, 0.4)
    assert PruningWatch(study, second, path)() == "pruned after validation 2: 40.00"
    assert study.trials[1].intermediate_values == {0: 0.55, 1: 0.4}


CHARTED = (Dimension("optim.lr", 0.001, 0.1, log=True), Dimension("fusion", choices=("concat", "orthogonal")))


def test_every_setting_has_a_chart_with_a_dot_per_trial(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    assert write_chart(study.get_trials(), CHARTED, tmp_path) is None
    for state, value in ((TrialState.COMPLETE, 0.5), (TrialState.FAIL, None), (TrialState.PRUNED, None)):
        trial = study.ask()
        for part in CHARTED:
            part.suggest(trial)
        if state == TrialState.PRUNED:
            trial.report(0.25, 0)
        study.tell(trial, value, state)
    path = write_chart(study.get_trials(), CHARTED, tmp_path)
    assert path is not None
    text = path.read_text()
    for words in ("trial", "optim.lr", "orthogonal", "2 trials, hollow if pruned"):
        assert words in text
    # Three charts of two dots: of a full one, and of a hollow one.
    assert text.count("fill-opacity: 0; stroke: #3b7dd8") == text.count("fill: #3b7dd8; stroke: #3b7dd8") == 3

"""A search drawn."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from dolglab.sweeps.search_space import Dimension
from dolglab.sweeps.study import write_chart

SPACE = (Dimension("optim.lr", 0.001, 0.1, log=True), Dimension("fusion", choices=("concat", "orthogonal")))


def test_every_setting_has_a_chart_with_a_dot_a_trial(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    assert write_chart(study.get_trials(), SPACE, tmp_path) is None
    for state, value in ((TrialState.COMPLETE, 0.5), (TrialState.FAIL, None), (TrialState.PRUNED, None)):
        trial = study.ask()
        for part in SPACE:
            part.suggest(trial)
        if state == TrialState.PRUNED:
            trial.report(0.25, 0)
        study.tell(trial, value, state)
    path = write_chart(study.get_trials(), SPACE, tmp_path)
    assert path is not None
    text = path.read_text()
    for words in ("trial", "optim.lr", "orthogonal", "2 trials, hollow where given up"):
        assert words in text
    # Three charts of two dots: of a full one, and of a hollow one.
    assert text.count("fill-opacity: 0; stroke: #3b7dd8") == text.count("fill: #3b7dd8; stroke: #3b7dd8") == 3

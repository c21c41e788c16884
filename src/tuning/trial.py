"""One trial: a training that is given up when its validation mAP falls behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optuna.trial import Trial, TrialState

from src.contracts import InputError
from src.results.series import read_series
from src.sweeps.job import run_job
from src.sweeps.names import job_folder
from src.sweeps.overrides import override
from src.sweeps.table import Job
from src.training.saving import MONITOR
from src.tuning.study import SharedStudy


def run_trial(study: SharedStudy, trial: Trial, train: Sequence[str]) -> Job:
    """Train with the trial's values in a folder below the study's, and tell the study.

    A trial that was stopped goes on from its last checkpoint. Raises InputError for a training that does not validate.
    """
    values = {part.key: part.suggest(trial) for part in study.space}
    short = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    folder = study.folder / job_folder(trial.number, short)
    swept = {key: str(value) for key, value in values.items()}
    name = f"{study.folder.name}/{folder.name}"
    # A search chooses by validation: what it does not choose stays untested.
    overrides = [*train, "test=false", *(override(key, value) for key, value in values.items())]
    watch = Watch(study, trial, folder / "metrics.csv")
    job = run_job(folder, name, study.folder.name, overrides, swept, watch)
    if job.status == "done" and job.score is None:
        raise InputError("a search goes by the validation mAP, and these trainings have no validation benchmark")
    watch.report()
    states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    study.done(trial, states[job.status], job.score)
    return job


class Watch:
    """Reports a training's validation mAP to its trial as it arrives; called, it says why to give up, or nothing.

    A trial's steps are its validations, from 0.
    """

    def __init__(self, study: SharedStudy, trial: Trial, metrics: Path) -> None:
        self.trial = trial
        self.metrics = metrics
        self.seen = 0.0
        before = next(known for known in study.trials if known.number == trial.number)
        self.known = len(before.intermediate_values)
        self.last = 0.0

    def __call__(self) -> str:
        if not self.report() or not self.trial.should_prune():
            return ""
        return f"pruned after validation {self.known}: {100 * self.last:.2f}"

    def report(self) -> bool:
        """Hand on what is new; whether anything was."""
        if not self.metrics.exists() or self.metrics.stat().st_mtime == self.seen:
            return False
        self.seen = self.metrics.stat().st_mtime
        found = read_series(self.metrics).get(MONITOR)
        fresh = [] if found is None else list(enumerate(found.values))[self.known :]
        for step, value in fresh:
            self.trial.report(value, step)
            self.last = value
        self.known += len(fresh)
        return bool(fresh)

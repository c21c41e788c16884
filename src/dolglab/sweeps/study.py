"""A search (`dolglab tune`): an Optuna study in a folder on which several processes work, trial by trial.

Each trial is a training in its own process, which is stopped if its validation falls behind the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from matplotlib.axes import Axes
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from dolglab.errors import UserError
from dolglab.io import acquire, release, write_text
from dolglab.results.metrics_log import read_series
from dolglab.sweeps.drawing import BLUE, INK, frames, svg_file
from dolglab.sweeps.jobs import Value, job_folder, override, run_job
from dolglab.sweeps.summary import Job, write_table
from dolglab.training.checkpointing import MONITOR

# The study's journal (append-only), the lock for choosing a trial, and the chart of trials.
JOURNAL, LOCK, CHART = "study.log", ".study.lock", "search.svg"
# Seconds to wait while another process chooses its trial.
PATIENCE = 120.0


@dataclass(frozen=True)
class Dimension:
    """One varied setting: an override's `key`, and its `choices`, or its range from `low` to `high`.

    If both ends are integers, values are integers. `log` is for ranges over powers of ten.
    """

    key: str
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        """Raise UserError for anything that is neither a range nor choices."""
        numbers = [end for end in (self.low, self.high) if isinstance(end, int | float)]
        if self.choices and not numbers:
            return
        if self.choices or len(numbers) < 2 or numbers[0] >= numbers[1] or (self.log and numbers[0] <= 0):
            raise UserError(
                f"search: {self.key} needs choices, or low < high (above 0 with log), not low={self.low}, "
                f"high={self.high}, choices={list(self.choices)}"
            )

    def suggest(self, trial: Trial) -> Value:
        """A value for `trial`; the same at every call."""
        if self.choices:
            return cast("Value", trial.suggest_categorical(self.key, list(self.choices)))
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        assert self.low is not None
        assert self.high is not None
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def example(self) -> Value:
        """One of its values.

        >>> Dimension("pooling", choices=("gem", "avg")).example()
        'gem'
        """
        return self.choices[0] if self.choices else self.low or 0


def read_space(search: Mapping[str, Mapping[str, Any] | None]) -> list[Dimension]:
    """The dimensions of a configuration; null entries are ignored. Raises UserError for an invalid entry."""
    space = []
    for name, entry in search.items():
        if entry is None:
            continue
        try:
            space.append(Dimension(**{**entry, "choices": tuple(entry.get("choices") or ())}))
        except TypeError:
            raise UserError(f"search.{name} needs a key with choices, or low and high and log, not {entry}") from None
    keys = [dimension.key for dimension in space]
    if not space or len(set(keys)) < len(keys):
        raise UserError(f"search needs entries with a key each, not {keys or 'none'}")
    return space


def run_search(study: SharedStudy, trials: int) -> float:
    """Work on a study until it has `trials` trials, printing a line for each; returns the best validation mAP.

    Raises UserError if no trial has a result, and once the first two trials failed with the same error.
    """
    failure = ""
    while (trial := study.next(trials)) is not None:
        job = run_trial(study, trial)
        if job.status == "failed" and job.reason == failure and study.best is None:
            raise UserError(f"the first trials failed alike, so the search stops: {failure}")
        failure = job.reason
        write_chart(study.trials, study.space, study.folder)
        figure = job.reason if job.score is None else f"{100 * job.score:.2f}"
        best = study.best
        so_far = "" if best is None else f" (best: {100 * (best.value or 0):.2f}, trial {best.number})"
        print(f"trial {job.folder.name}: {figure}{so_far}", flush=True)
    if study.running:
        print(f"{study.running} trials are still running in other processes")
    best, table = study.best, write_table(study.folder)
    if best is None and study.running:
        raise UserError("there is no result yet")
    if best is None or best.value is None:
        raise UserError(f"none of the {len(study.trials)} trials has a result: {table} says why")
    settings = " ".join(f"{key}={value}" for key, value in best.params.items())
    print(f"best of {len(study.trials)} trials ({table}): {100 * best.value:.2f} with {settings}")
    return best.value


class SharedStudy:
    """An Optuna study in a folder.

    Args:
        folder: the search's folder.
        space: the varied settings.
        train: overrides of every trial; a continued study keeps its original overrides and space.
        sampler: constructor of a trial's sampler, called with its seed.
        pruner: decides which trials are stopped.
        seed: seed of the study: the next trial does not depend on which process chooses it, nor on interruptions.

    Raises UserError if the folder has another study.
    """

    def __init__(
        self,
        folder: Path,
        space: Sequence[Dimension],
        train: Sequence[str],
        sampler: Callable[..., BaseSampler],
        pruner: BasePruner,
        seed: int = 0,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder
        self.space = space
        self.train = list(train)
        self.sampler = sampler
        self.seed = seed
        folder.mkdir(parents=True, exist_ok=True)
        with self._exclusive():
            storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
            self.study = optuna.create_study(
                storage=storage, study_name="study", direction="maximize", load_if_exists=True, pruner=pruner
            )
            self._claim(space=json.dumps([asdict(part) for part in space]), train=json.dumps(self.train))

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials so far."""
        return self.study.get_trials(deepcopy=False)

    @property
    def running(self) -> int:
        """The number of trials in other processes."""
        return sum(trial.state == TrialState.RUNNING for trial in self.trials)

    @property
    def best(self) -> FrozenTrial | None:
        """The finished trial with the highest mAP."""
        done = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return max(done, key=lambda trial: trial.value or 0.0, default=None)

    def next(self, trials: int) -> Trial | None:
        """A trial to work on: one whose process has ended, else a new one; None if there are `trials` already.

        It belongs to this process until `done`.
        """
        with self._exclusive():
            for abandoned in self.trials:
                if abandoned.state == TrialState.RUNNING and acquire(self._lock(abandoned.number)):
                    return Trial(self.study, abandoned._trial_id)
            number = len(self.trials)
            if number >= trials:
                return None
            seed = np.random.SeedSequence([self.seed, number]).generate_state(1)[0]
            self.study.sampler = self.sampler(seed=int(seed))
            trial = self.study.ask()
            for dimension in self.space:
                dimension.suggest(trial)
            acquire(self._lock(trial.number))
            return trial

    def done(self, trial: Trial, state: TrialState, value: float | None = None) -> None:
        """Record how a trial ended, and release it."""
        lock = self._lock(trial.number)
        with self._exclusive():
            self.study.tell(trial, value, state)
            lock.unlink()
            release(lock)

    def _lock(self, number: int) -> Path:
        return self.folder / f".trial-{number}.lock"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        lock = self.folder / LOCK
        if not acquire(lock, PATIENCE, needed=True):
            raise UserError(f"another process has held {lock} for {PATIENCE:.0f} s: is it stopped?")
        try:
            yield
        finally:
            release(lock)

    def _claim(self, **attributes: str) -> None:
        """Record the study's attributes; refuse a study with other attributes."""
        for key, value in attributes.items():
            known = self.study.user_attrs.get(key, value)
            if known != value:
                raise UserError(
                    f"{self.folder} holds a search with another {key}, {known}: give this one another name=..."
                )
            self.study.set_user_attr(key, value)


def run_trial(study: SharedStudy, trial: Trial) -> Job:
    """Train with the trial's values in a sub-folder of the study, and record the result.

    A trial that was stopped continues from its last checkpoint. Raises UserError for a training without validation.
    """
    values = {part.key: part.suggest(trial) for part in study.space}
    short = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    folder = study.folder / job_folder(trial.number, short)
    swept = {key: str(value) for key, value in values.items()}
    name = f"{study.folder.name}/{folder.name}"
    # A search chooses by validation: the other trials are not tested.
    overrides = [*study.train, "test=false", *(override(key, value) for key, value in values.items())]
    watch = PruningWatch(study, trial, folder / "metrics.csv")
    job = run_job(folder, name, study.folder.name, overrides, swept, watch)
    if job.status == "done" and job.score is None:
        raise UserError("a search needs the validation mAP, and these trainings have no validation benchmark")
    watch.report()
    states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    study.done(trial, states[job.status], job.score)
    return job


class PruningWatch:
    """Reports a training's validation mAP to its trial; a call returns why the trial should be pruned, or nothing.

    A trial's steps are its validations, from 0.
    """

    def __init__(self, study: SharedStudy, trial: Trial, metrics: Path) -> None:
        self.trial = trial
        self.metrics = metrics
        self.modified = 0.0
        # Values that a stopped process reported before are not reported again.
        known = next(frozen for frozen in study.trials if frozen.number == trial.number)
        self.reported = len(known.intermediate_values)
        self.last = 0.0

    def __call__(self) -> str:
        if not self.report() or not self.trial.should_prune():
            return ""
        return f"pruned after validation {self.reported}: {100 * self.last:.2f}"

    def report(self) -> bool:
        """Report new values; returns whether there were any."""
        if not self.metrics.exists() or self.metrics.stat().st_mtime == self.modified:
            return False
        self.modified = self.metrics.stat().st_mtime
        series = read_series(self.metrics).get(MONITOR)
        fresh = [] if series is None else list(enumerate(series.values))[self.reported :]
        for step, value in fresh:
            self.trial.report(value, step)
            self.last = value
        self.reported += len(fresh)
        return bool(fresh)


def write_chart(trials: Sequence[FrozenTrial], space: Sequence[Dimension], folder: Path) -> Path | None:
    """Draw one dot per trial, over its number and over each setting; None if no trial has a figure.

    Finished trials are filled dots; pruned ones are hollow, at their last validation.
    """
    shown = [trial for trial in trials if _score(trial) is not None]
    if not shown:
        return None
    figure, (over_trials, *over_settings) = frames(["trial", *(part.key for part in space)], "validation mAP, %")
    _draw_dots(over_trials, [trial.number for trial in shown], shown)
    finished = [trial for trial in shown if trial.state == TrialState.COMPLETE]
    best = np.maximum.accumulate([100 * (trial.value or 0) for trial in finished])
    over_trials.step([trial.number for trial in finished], best, where="post", color=INK, linewidth=0.8)
    for axes, part in zip(over_settings, space, strict=True):
        values = [trial.params[part.key] for trial in shown]
        if part.choices:
            names = [str(choice) for choice in part.choices]
            values = [names.index(str(value)) for value in values]
            axes.set_xticks(range(len(names)), names)
        elif part.log:
            axes.set_xscale("log")
        _draw_dots(axes, values, shown)
    note = f"validation mAP (Medium), %: {len(shown)} trials, hollow if pruned"
    return write_text(folder / CHART, svg_file(figure, folder.name, note))


def _draw_dots(axes: Axes, across: Sequence[float], trials: Sequence[FrozenTrial]) -> None:
    for x, trial in zip(across, trials, strict=True):
        face = BLUE if trial.state == TrialState.COMPLETE else "none"
        axes.plot(x, 100 * (_score(trial) or 0), "o", markersize=4, markeredgecolor=BLUE, markerfacecolor=face)


def _score(trial: FrozenTrial) -> float | None:
    """A trial's result, or its last known value."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    steps = trial.intermediate_values
    return steps[max(steps)] if trial.state == TrialState.PRUNED and steps else None

"""A study on disk, which several processes work on, and whose trials outlive them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from src.errors import InputError
from src.locks import hold, release
from src.tuning.space import Dimension

# The study's journal, which is appended to, and what is held while a trial is chosen.
JOURNAL, LOCK = "study.log", ".study.lock"
# Seconds in which another process has chosen its trial.
PATIENCE = 120.0


class SharedStudy:
    """An Optuna study in a folder.

    Args:
        folder: the search's.
        space: what it varies.
        train: overrides of every trial; a study goes on with those it began with, and with its space.
        sampler: builds the sampler of a trial from its seed.
        pruner: decides which trials are given up.
        seed: of the study: which trial comes next does not hang on who works on it, nor on stops between trials.

    Raises InputError where the folder holds a study of something else.
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
        self.sampler = sampler
        self.seed = seed
        folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
            self.study = optuna.create_study(
                storage=storage, study_name="study", direction="maximize", load_if_exists=True, pruner=pruner
            )
            self._check({"space": json.dumps([asdict(part) for part in space]), "train": json.dumps(list(train))})

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """All of its trials so far."""
        return self.study.get_trials(deepcopy=False)

    @property
    def running(self) -> int:
        """Trials that other processes are at."""
        return sum(trial.state == TrialState.RUNNING for trial in self.trials)

    @property
    def best(self) -> optuna.trial.FrozenTrial | None:
        """The finished trial with the highest mAP."""
        done = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return max(done, key=lambda trial: trial.value or 0.0, default=None)

    def next(self, trials: int) -> Trial | None:
        """A trial that nobody works on: one whose process is gone, else a new one; None once there are `trials`.

        It is this process's until `done`.
        """
        with self._alone():
            for left in self.trials:
                if left.state == TrialState.RUNNING and hold(self._lock(left.number)):
                    return Trial(self.study, left._trial_id)
            number = len(self.trials)
            if number >= trials:
                return None
            seed = np.random.SeedSequence([self.seed, number]).generate_state(1)[0]
            self.study.sampler = self.sampler(seed=int(seed))
            trial = self.study.ask()
            for dimension in self.space:
                dimension.suggest(trial)
            hold(self._lock(trial.number))
            return trial

    def done(self, trial: Trial, state: TrialState, value: float | None = None) -> None:
        """Tell how a trial ended, and let go of it."""
        lock = self._lock(trial.number)
        with self._alone():
            self.study.tell(trial, value, state)
            lock.unlink()
            release(lock)

    def _lock(self, number: int) -> Path:
        return self.folder / f".trial-{number}.lock"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = self.folder / LOCK
        if not hold(lock, PATIENCE, needed=True):
            raise InputError(f"another process has held {lock} for {PATIENCE:.0f} s: is it stopped?")
        try:
            yield
        finally:
            release(lock)

    def _check(self, about: dict[str, str]) -> None:
        for key, value in about.items():
            if self.study.user_attrs.get(key, value) != value:
                raise InputError(
                    f"{self.folder} holds a search with another {key}, {self.study.user_attrs[key]}: give this one "
                    "another name=..."
                )
            self.study.set_user_attr(key, value)

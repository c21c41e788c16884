"""Hydra's basic sweeper for sweeps whose options may belong to only some of the swept choices.

Hydra accepts sweepers only from modules of the namespace package `hydra_plugins`, which it imports when it starts.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.errors import ConfigCompositionException


class ChoiceSweeper(BasicSweeper):
    """The combinations of all swept values; an option reaches the jobs that have it (see `fitting_jobs`)."""

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """The overrides of the next jobs. Raises Hydra's error for an option that no job has."""
        if self.batch_index == 0:
            assert self.overrides is not None
            jobs = fitting_jobs([job for batch in self.overrides for job in batch], self._compose)
            self.overrides = list(self.split_overrides_to_chunks(jobs, self.max_batch_size))
        return super().get_job_batch()

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: all jobs were composed for the first batch."""

    def _compose(self, job: list[str]) -> None:
        assert self.hydra_context is not None
        assert self.config is not None
        self.hydra_context.config_loader.load_sweep_config(self.config, job)


def fitting_jobs(jobs: Sequence[Sequence[str]], compose: Callable[[list[str]], object]) -> list[list[str]]:
    """The overrides of each job, without options that its configuration does not have; jobs that are then equal, once.

    `compose` composes a job's configuration. Says on stderr which options are left out of how many jobs. Raises the
    error of `compose` for an option that no job has, and for anything else that it refuses.
    """
    fitting: list[list[str]] = []
    left_out, refused = Counter[str](), dict[str, ConfigCompositionException]()
    for job in jobs:
        overrides = list(job)
        while (missing := _missing(overrides, compose)) is not None:
            option, error = missing
            refused.setdefault(_key(option), error)
            left_out[option] += 1
            overrides.remove(option)
        fitting.append(overrides)
    known = {_key(option) for job in fitting for option in job}
    for key, error in refused.items():
        if key not in known:
            raise error
    for option, count in left_out.items():
        print(f"{option} is left out of {count} of {len(jobs)} jobs, which have no such option", file=sys.stderr)
    return [list(job) for job in dict.fromkeys(map(tuple, fitting))]


def _missing(
    overrides: Sequence[str], compose: Callable[[list[str]], object]
) -> tuple[str, ConfigCompositionException] | None:
    """The first of the overrides whose option does not exist, with the error; None if the job can be composed."""
    # Every Hydra application imports this module.
    from dolglab.commands.cli_errors import UNKNOWN_KEY

    try:
        compose(list(overrides))
    except ConfigCompositionException as error:
        unknown = UNKNOWN_KEY.search(str(error))
        option = next((text for text in overrides if unknown and _key(text) == (unknown[1] or unknown[2])), None)
        if option is None:
            raise
        return option, error
    return None


def _key(override: str) -> str:
    return override.partition("=")[0]

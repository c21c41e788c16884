"""Hydra's basic sweeper for sweeps whose options may belong to only some of the swept choices.

Hydra accepts sweepers only from modules of the namespace package `hydra_plugins`, which it imports when it starts.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class ChoiceSweeper(BasicSweeper):
    """The combinations of all swept values; an option reaches the jobs that have it (see `fitting_jobs`)."""

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """The overrides of the next jobs. Raises Hydra's error for an option that no job has."""
        from dolglab.sweeps.fitting import fitting_jobs

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

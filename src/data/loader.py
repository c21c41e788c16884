"""The training loader, whose state says how far into an epoch all processes are together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from src.contracts import Batch
from src.data.sampling import EpochSampler


class EpochLoader(DataLoader[Batch]):
    """Batches in an `EpochSampler`'s order, from any sample of an epoch on.

    The state is a count of samples over all processes, and not of what workers have read ahead: since a sample follows
    from (seed, epoch, id), another number of workers or processes goes on with the same samples. Lightning keeps it in
    checkpoints.
    """

    _drawn: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The rest of an epoch that was resumed, or a whole one."""
        self._drawn = self._begin()
        return self._counted(super().__iter__(), **self._drawn)

    def state_dict(self) -> dict[str, int]:
        """The epoch, and its samples that were handed out, by all processes together."""
        return dict(self._drawn or self._begin())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the samples of `state`; they count for that epoch alone."""
        self._order.resume(int(state["epoch"]), int(state["samples"]))

    @property
    def _order(self) -> EpochSampler:
        assert isinstance(self.sampler, EpochSampler)
        return self.sampler

    def _begin(self) -> dict[str, int]:
        return {"epoch": self._order.epoch, "samples": self._order.start}

    def _counted(self, batches: Iterator[Batch], epoch: int, samples: int) -> Iterator[Batch]:
        for batch in batches:
            samples += len(batch) * self._order.world
            self._drawn = {"epoch": epoch, "samples": samples}
            yield batch

"""The order in which a training draws its images, and a loader that resumes within an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from dolglab.contracts import Batch
from dolglab.errors import UserError

# How a class's share of the draws grows with its images: with their number, not at all, with its square root.
SAMPLING = {"uniform": 1.0, "balanced": 0.0, "sqrt": 0.5}


def draw_chances(labels: NDArray[np.int64], sampling: str) -> NDArray[np.float64] | None:
    """Each sample's chance of being drawn, (N,), summing to 1; None where each is drawn once instead.

    Raises UserError for a rule there is not.
    """
    if sampling not in SAMPLING:
        raise UserError(f"data.sampling={sampling} is none of {', '.join(SAMPLING)}")
    if sampling == "uniform":
        return None
    chances = np.bincount(labels).astype(np.float64)[labels] ** (SAMPLING[sampling] - 1)
    return chances / chances.sum()


@dataclass(eq=False)
class EpochSampler(Sampler[tuple[int, int]]):
    """Every sample once an epoch, or as many draws by given chances, as follows from (seed, epoch) alone.

    Yields (epoch, position), so that a worker needs no state to know the epoch. The ranks take turns, so that
    one global batch holds the same samples whatever the number of processes; what does not divide by the
    ranks is left out of that epoch.

    Args:
        size: samples there are.
        seed: of the order.
        rank, world: this process and how many there are.
        epoch: the first one; a resumed run's loader starts its workers before Lightning calls `set_epoch`.
        chances: each sample's chance of being the next draw, (size,); None draws each once.
        groups: the chunk that each sample lies in, (size,), where whole chunks are fetched: then chunks are shuffled,
            and samples among those of `window` chunks. None shuffles over all samples.
        window: how many chunks' samples are mixed.
    """

    size: int
    seed: int
    rank: int = 0
    world: int = 1
    epoch: int = 0
    chances: NDArray[np.float64] | None = None
    groups: NDArray[np.int64] | None = None
    window: int = 16
    # An epoch, and its samples that were drawn before the run was resumed.
    _resumed: tuple[int, int] = field(default=(0, 0), init=False)

    @property
    def start(self) -> int:
        """Samples of this epoch that were drawn before the run was resumed, by all ranks together."""
        epoch, samples = self._resumed
        return samples if epoch == self.epoch else 0

    def resume(self, epoch: int, samples: int) -> None:
        """Leave out, in that epoch, the first `samples` of all ranks together."""
        self._resumed = (epoch, samples)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Of a whole epoch, also where a part of it is left."""
        return self.size // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, start = self.epoch, self.start
        rng = np.random.default_rng([self.seed, epoch])
        order = self._order(rng)
        for position in order[start + self.rank : len(self) * self.world : self.world]:
            yield epoch, int(position)

    def _order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        if self.chances is not None:
            return rng.choice(self.size, self.size, p=self.chances)
        if self.groups is not None:
            # Window by window, each of some random chunks, in random order within it.
            windows = rng.permutation(self.groups.max() + 1)[self.groups] // self.window
            return np.lexsort((rng.random(len(self.groups)), windows))
        return rng.permutation(self.size)


class EpochLoader(DataLoader[Batch]):
    """Batches in an `EpochSampler`'s order, from any sample of an epoch on.

    The state is a count of samples over all processes, and not of what workers have read ahead: since a sample follows
    from (seed, epoch, id), another number of workers or processes goes on with the same samples. Lightning keeps it in
    checkpoints.
    """

    _progress: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The rest of an epoch that was resumed, or a whole one."""
        self._progress = self._initial()
        return self._counted(super().__iter__(), **self._progress)

    def state_dict(self) -> dict[str, int]:
        """The epoch, and its samples that were handed out, by all processes together."""
        return dict(self._progress or self._initial())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the samples of `state`; they count for that epoch alone."""
        self._epoch_sampler.resume(int(state["epoch"]), int(state["samples"]))

    @property
    def _epoch_sampler(self) -> EpochSampler:
        assert isinstance(self.sampler, EpochSampler)
        return self.sampler

    def _initial(self) -> dict[str, int]:
        return {"epoch": self._epoch_sampler.epoch, "samples": self._epoch_sampler.start}

    def _counted(self, batches: Iterator[Batch], epoch: int, samples: int) -> Iterator[Batch]:
        for batch in batches:
            samples += len(batch) * self._epoch_sampler.world
            self._progress = {"epoch": epoch, "samples": samples}
            yield batch

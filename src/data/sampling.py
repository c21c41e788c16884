"""Which samples an epoch draws, in which order, and which of them each process takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[tuple[int, int]]):
    """Every sample once an epoch, in an order that follows from (seed, epoch) alone.

    Yields (epoch, position), so that a worker needs no state to know the epoch. The ranks take turns, so that
    one global batch holds the same samples whatever the number of processes; what does not divide by the
    ranks is left out of that epoch.

    Args:
        size: samples there are.
        seed: of the order.
        rank, world: this process and how many there are.
        epoch: the first one; a resumed run's loader starts its workers before Lightning calls `set_epoch`.
    """

    def __init__(self, size: int, seed: int, rank: int = 0, world: int = 1, epoch: int = 0) -> None:
        self.size = size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
        for position in order[self.rank : len(self) * self.world : self.world]:
            yield epoch, int(position)


class RankShard(Sampler[int]):
    """Every position once over all processes together, without padding."""

    def __init__(self, size: int, rank: int = 0, world: int = 1) -> None:
        self.positions = range(rank, size, world)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)

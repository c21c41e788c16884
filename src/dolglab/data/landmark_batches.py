"""Batches of P landmarks with K images each, for losses over pairs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dolglab.data.datasets import EpochSampler
from dolglab.errors import UserError


def landmark_batches(
    labels: NDArray[np.int64], landmarks: int, images: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Positions of an epoch's samples, (batches, landmarks, images); a batch has each landmark at most once.

    The images of a landmark are shuffled and divided into groups of `images`; the rest is left out of this epoch. In
    the first round, every landmark contributes its first group, in random order; in the second round, its second group
    if there is one; and so on. Groups that do not fill a batch of their round are left out. The number of batches is
    `count_batches`.
    """
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    within = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    whole = within < (sizes // images * images)[labels[order]]
    groups = order[whole].reshape(-1, images)
    rounds = within[whole].reshape(-1, images)[:, 0] // images
    by_round = np.lexsort((rng.random(len(groups)), rounds))
    starts = np.split(by_round, np.bincount(rounds).cumsum()[:-1])
    kept = [part[: len(part) // landmarks * landmarks] for part in starts]
    return groups[np.concatenate(kept)].reshape(-1, landmarks, images)


def count_batches(labels: NDArray[np.int64], landmarks: int, images: int) -> int:
    """The number of batches of `landmark_batches`."""
    # For each round, the number of landmarks with a group for it.
    in_round = np.bincount(np.bincount(labels) // images)[::-1].cumsum()[::-1][1:]
    return int((in_round // landmarks).sum())


@dataclass(eq=False, kw_only=True)
class LandmarkSampler(EpochSampler):
    """An epoch's samples in batches of landmarks, a function of (seed, epoch) only (see `landmark_batches`).

    All images of a landmark in a batch go to the same process, so that losses find their pairs. A global batch has the
    same samples for any number of processes.

    Args (and those of `EpochSampler`, except `size`, which is computed):
        labels: the landmark of each sample, (N,).
        landmarks: P, the number of landmarks in a global batch.
        images: K, the number of images per landmark.

    Raises UserError if the landmarks of a batch cannot be divided among the processes, and if there are too few.
    """

    size: int = field(init=False)
    labels: NDArray[np.int64]
    landmarks: int
    images: int

    def __post_init__(self) -> None:
        self.size = count_batches(self.labels, self.landmarks, self.images) * self.landmarks * self.images
        check_landmarks(self.size, self.landmarks, self.images, self.world)

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Positions batch by batch, the ranks in turn; each rank has complete landmarks."""
        batches = landmark_batches(self.labels, self.landmarks, self.images, rng)
        return batches.reshape(len(batches), -1, self.world, self.images).transpose(0, 1, 3, 2).ravel()


def check_landmarks(size: int, landmarks: int, images: int, world: int) -> None:
    """Raise UserError if an epoch has no batch, or if `world` processes cannot divide the landmarks of a batch."""
    if not size:
        raise UserError(
            f"fewer than {landmarks} landmarks have {images} training images: reduce data.batch_size or "
            "data.images_per_landmark"
        )
    if landmarks % world:
        raise UserError(
            f"the {landmarks} landmarks of a batch (data.batch_size / data.images_per_landmark) cannot be divided "
            f"among {world} processes"
        )

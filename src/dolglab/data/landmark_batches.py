"""Batches of P landmarks with K images each, which losses over pairs want."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dolglab.data.datasets import EpochSampler
from dolglab.errors import UserError


def landmark_batches(
    labels: NDArray[np.int64], landmarks: int, images: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Positions of an epoch's samples, (batches, landmarks, images): in a batch each landmark once.

    A landmark's images are shuffled and cut into groups of `images`; what fills no group is left out of this epoch.
    Each landmark gives its first group, in random order, then each that has one its second, and so on; what fills no
    batch of such a round is left out, and the number of batches is `count_batches`.
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
    """How many batches `landmark_batches` makes."""
    # Of each round, the landmarks that have a group left for it.
    in_round = np.bincount(np.bincount(labels) // images)[::-1].cumsum()[::-1][1:]
    return int((in_round // landmarks).sum())


@dataclass(eq=False, kw_only=True)
class LandmarkSampler(EpochSampler):
    """An epoch's samples in batches of landmarks, as follows from (seed, epoch) alone (see `landmark_batches`).

    A landmark's images of a batch go to one process, so that losses find their pairs; a global batch holds the same
    samples whatever the number of processes.

    Args (and those of `EpochSampler`, but `size`, which is counted here):
        labels: the landmark of each sample, (N,).
        landmarks: P, of a global batch.
        images: K, of each.

    Raises UserError for landmarks that the processes cannot share, and for fewer of them than a batch asks for.
    """

    size: int = field(init=False)
    labels: NDArray[np.int64]
    landmarks: int
    images: int

    def __post_init__(self) -> None:
        self.size = count_batches(self.labels, self.landmarks, self.images) * self.landmarks * self.images
        check_landmarks(self.size, self.landmarks, self.images, self.world)

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Batch by batch, the ranks in turns, each one's landmarks one after the other."""
        batches = landmark_batches(self.labels, self.landmarks, self.images, rng)
        return batches.reshape(len(batches), -1, self.world, self.images).transpose(0, 1, 3, 2).ravel()


def check_landmarks(size: int, landmarks: int, images: int, world: int) -> None:
    """Raise UserError where an epoch of `size` has no batch, or `world` processes cannot share its landmarks."""
    if not size:
        raise UserError(
            f"there are no {landmarks} landmarks with {images} training images: lower data.batch_size or "
            "data.images_per_landmark"
        )
    if landmarks % world:
        raise UserError(
            f"the {landmarks} landmarks of a batch (data.batch_size over data.images_per_landmark) do not divide by "
            f"{world} processes"
        )

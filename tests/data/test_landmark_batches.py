"""Batches of landmarks with several images each: complete, distinct, a function of seed and epoch, distributed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dolglab.data.landmark_batches import LandmarkSampler, count_batches, landmark_batches
from dolglab.errors import UserError

few = settings(max_examples=40, derandomize=True, deadline=None)
LABELS = np.repeat(np.arange(9), [1, 4, 7, 8, 9, 4, 5, 12, 3])


@few
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12), landmarks=st.integers(1, 4), images=st.integers(1, 4)
)
def test_batches_are_complete_with_distinct_landmarks(sizes: list[int], landmarks: int, images: int) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    found = landmark_batches(labels, landmarks, images, np.random.default_rng(0))
    assert found.shape[1:] == (landmarks, images)
    assert len(found) == count_batches(labels, landmarks, images)
    assert len(np.unique(found)) == found.size
    for batch in found:
        of = labels[batch]
        assert (of == of[:, :1]).all()
        assert len(set(of[:, 0])) == landmarks


def test_each_landmark_is_drawn_before_any_repeats() -> None:
    """7 of 9 landmarks have a group of 4, and batches of 3 use 6 of them in the first round; 3 have a second group."""
    found = landmark_batches(LABELS, 3, 4, np.random.default_rng(0))
    of = LABELS[found[:, :, 0]]
    assert len(set(of[:2].ravel())) == 6
    assert set(of[2]) == {3, 4, 7}
    assert len(found) == count_batches(LABELS, 3, 4) == 3


def test_order_depends_only_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        return list(LandmarkSampler(seed, epoch=epoch, labels=LABELS, landmarks=3, images=2))

    assert order(0, 1) == order(0, 1)
    assert [row for _, row in order(0, 1)] != [row for _, row in order(0, 2)]
    assert order(0, 1) != order(1, 1)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_divide_batches_by_whole_landmarks(world: int) -> None:
    def rows(rank: int, world: int) -> NDArray[np.int64]:
        sampler = LandmarkSampler(0, rank, world, labels=LABELS, landmarks=4, images=2)
        found = np.array([row for _, row in sampler])
        assert len(found) == len(sampler)
        return found.reshape(-1, 8 // world)

    alone, shares = rows(0, 1), [rows(rank, world) for rank in range(world)]
    for batch, parts in zip(alone, zip(*shares, strict=True), strict=True):
        assert set(batch) == set(np.concatenate(parts))
        for part in parts:
            of = LABELS[part].reshape(-1, 2)
            assert (of[:, 0] == of[:, 1]).all()


def test_an_epoch_is_resumed_with_another_number_of_processes() -> None:
    whole = list(LandmarkSampler(3, epoch=2, labels=LABELS, landmarks=4, images=2))
    seen: list[tuple[int, int]] = []
    for rank in range(2):
        sampler = LandmarkSampler(3, rank, 2, epoch=2, labels=LABELS, landmarks=4, images=2)
        sampler.resume(epoch=2, samples=8)
        seen += list(sampler)
    assert sorted(seen) == sorted(whole[8:])


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(UserError, match=r"8 landmarks have 4"):
        LandmarkSampler(0, labels=LABELS, landmarks=8, images=4)
    with pytest.raises(UserError, match=r"3 landmarks.*2 processes"):
        LandmarkSampler(0, 0, 2, labels=LABELS, landmarks=3, images=2)

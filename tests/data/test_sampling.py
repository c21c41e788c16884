"""The order of training images, and a loader that resumes within an epoch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolglab.contracts import Batch, TrainingSet
from dolglab.data.augment import Augmentation
from dolglab.data.datasets import EpochLoader, EpochSampler, TrainingImages, draw_chances

few = settings(max_examples=40, derandomize=True, deadline=None)


def test_an_epoch_is_a_permutation_with_its_number() -> None:
    sampler = EpochSampler(50, seed=3)
    sampler.set_epoch(4)
    keys = list(sampler)
    assert {epoch for epoch, _ in keys} == {4}
    assert sorted(position for _, position in keys) == list(range(50))
    assert all(type(position) is int for _, position in keys)


def test_a_started_epoch_keeps_its_number() -> None:
    sampler = EpochSampler(10, seed=3, epoch=1)
    running = iter(sampler)
    first = next(running)
    sampler.set_epoch(2)
    assert {epoch for epoch, _ in [first, *running]} == {1}


def test_order_depends_only_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        sampler = EpochSampler(50, seed)
        sampler.set_epoch(epoch)
        return [(0, position) for _, position in sampler]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


@few
@given(size=st.integers(1, 200), world=st.integers(1, 8), per_rank=st.integers(1, 5))
def test_global_batches_are_the_same_for_any_number_of_processes(size: int, world: int, per_rank: int) -> None:
    ranks = [EpochSampler(size, 0, rank, world) for rank in range(world)]
    keys = [list(sampler) for sampler in ranks]
    assert [len(part) for part in keys] == [len(sampler) for sampler in ranks] == [size // world] * world
    alone = list(EpochSampler(size, 0))
    for batch in range(size // world // per_rank):
        shared = {key for part in keys for key in part[batch * per_rank : (batch + 1) * per_rank]}
        assert shared == set(alone[batch * per_rank * world : (batch + 1) * per_rank * world])


BATCH = 4


def loader(
    training: TrainingSet, workers: int = 0, rank: int = 0, world: int = 1, epoch: int = 0, sampling: str = "uniform"
) -> EpochLoader:
    images = TrainingImages(training, 16, Augmentation().crop, seed=5)
    chances = draw_chances(training.labels, sampling)
    return EpochLoader(
        images,
        batch_size=BATCH // world,
        sampler=EpochSampler(len(images), 5, rank, world, epoch, chances),
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_same,
    )


def _same(batch: Batch) -> Batch:
    return batch


def ids(batches: Iterator[Batch] | EpochLoader) -> list[list[int]]:
    return [batch.ids.tolist() for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_a_resumed_epoch_continues_where_it_stopped(training_set: TrainingSet, workers: int, sampling: str) -> None:
    whole = loader(training_set, epoch=3, sampling=sampling)
    first, *rest = ids(whole)
    broken = loader(training_set, workers, epoch=3, sampling=sampling)
    running = iter(broken)
    assert next(running).ids.tolist() == first
    state = broken.state_dict()
    assert state == {"epoch": 3, "samples": BATCH}
    del running
    resumed = loader(training_set, workers, epoch=3, sampling=sampling)
    resumed.load_state_dict(state)
    assert len(resumed) == len(whole) == 3
    assert ids(resumed) == rest
    assert resumed.state_dict() == whole.state_dict() == {"epoch": 3, "samples": 12}
    for one in (whole, resumed):
        one.sampler.set_epoch(4)
    assert ids(resumed) == ids(whole)


def test_samples_read_ahead_are_not_counted(training_set: TrainingSet) -> None:
    running = loader(training_set, workers=2)
    batches = iter(running)
    assert running.state_dict() == {"epoch": 0, "samples": 0}
    next(batches)
    assert running.state_dict() == {"epoch": 0, "samples": BATCH}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4)])
def test_another_number_of_processes_draws_the_rest(training_set: TrainingSet, before: int, after: int) -> None:
    whole = ids(loader(training_set))
    broken = [loader(training_set, rank=rank, world=before) for rank in range(before)]
    for part in broken:
        next(iter(part))
    (state,) = {tuple(part.state_dict().items()) for part in broken}
    resumed = [loader(training_set, rank=rank, world=after) for rank in range(after)]
    for part in resumed:
        part.load_state_dict(dict(state))
    shares = zip(*map(ids, resumed), strict=True)
    assert [{i for part in share for i in part} for share in shares] == [set(batch) for batch in whole[1:]]


def test_a_state_at_the_end_of_an_epoch_starts_the_next(training_set: TrainingSet) -> None:
    whole = loader(training_set, epoch=1)
    resumed = loader(training_set, epoch=1)
    resumed.load_state_dict({"epoch": 0, "samples": 12})
    assert ids(resumed) == ids(whole)

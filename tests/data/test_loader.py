from __future__ import annotations

from collections.abc import Iterator

import pytest

from dolglab.contracts import Batch, TrainingSet
from dolglab.data.augment import Augmentation
from dolglab.data.datasets import TrainingImages
from dolglab.data.sampling import EpochLoader, EpochSampler, draw_chances

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
def test_a_resumed_epoch_goes_on_where_it_stopped(training_set: TrainingSet, workers: int, sampling: str) -> None:
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


def test_what_workers_read_ahead_is_not_counted(training_set: TrainingSet) -> None:
    running = loader(training_set, workers=2)
    batches = iter(running)
    assert running.state_dict() == {"epoch": 0, "samples": 0}
    next(batches)
    assert running.state_dict() == {"epoch": 0, "samples": BATCH}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4)])
def test_another_number_of_processes_draws_what_is_left(training_set: TrainingSet, before: int, after: int) -> None:
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


def test_a_state_at_an_epochs_end_begins_the_next(training_set: TrainingSet) -> None:
    whole = loader(training_set, epoch=1)
    resumed = loader(training_set, epoch=1)
    resumed.load_state_dict({"epoch": 0, "samples": 12})
    assert ids(resumed) == ids(whole)

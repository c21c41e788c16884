from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dolglab.data.sampling import EpochSampler

few = settings(max_examples=40, derandomize=True, deadline=None)


def test_an_epoch_is_a_permutation_with_its_number() -> None:
    sampler = EpochSampler(50, seed=3)
    sampler.set_epoch(4)
    keys = list(sampler)
    assert {epoch for epoch, _ in keys} == {4}
    assert sorted(position for _, position in keys) == list(range(50))
    assert all(type(position) is int for _, position in keys)


def test_an_epoch_that_has_begun_keeps_its_number() -> None:
    sampler = EpochSampler(10, seed=3, epoch=1)
    running = iter(sampler)
    first = next(running)
    sampler.set_epoch(2)
    assert {epoch for epoch, _ in [first, *running]} == {1}


def test_order_follows_from_seed_and_epoch_alone() -> None:
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

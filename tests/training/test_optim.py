"""The schedule against its formula, and what it refuses."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from src.errors import InputError
from src.training.optim import cosine_factor, optimizer_steps, warmup_cosine


def test_half_a_cosine() -> None:
    expected = [(1 + math.cos(math.pi * step / 10)) / 2 for step in range(11)]
    assert [cosine_factor(step, 10, 0, 0.0) for step in range(11)] == pytest.approx(expected)


def test_warms_up_linearly_then_falls_to_the_final_share() -> None:
    factors = [cosine_factor(step, 100, 10, 0.1) for step in range(101)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1
    assert factors[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))


def test_keeps_the_ratio_of_two_groups() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 10.0)]
    optimizer = torch.optim.SGD(groups)
    schedule = warmup_cosine(optimizer, 4, warmup=0.5)
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert [low for low, _ in rates] == pytest.approx([0.5, 1.0, 1.0, 0.5])
    assert [high for _, high in rates] == pytest.approx([5.0, 10.0, 10.0, 5.0])


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"warmup": -0.1}, {"final": 2.0}])
def test_refuses_shares_that_are_none(options: dict[str, float]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(InputError, match="shares"):
        warmup_cosine(optimizer, 10, **options)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"batches": 37, "epochs": 3}, 111),
        ({"batches": 37, "epochs": 3, "accumulate": 4}, 30),
        ({"batches": 37, "epochs": 3, "limit": 0.1}, 9),
        ({"batches": 37, "epochs": 3, "limit": 5}, 15),
        ({"batches": 3, "epochs": 2, "limit": 5}, 6),
        ({"batches": 37, "epochs": 3, "most": 100}, 100),
        ({"batches": 37, "epochs": 3, "most": 200}, 111),
        ({"batches": 37, "epochs": -1, "most": 50}, 50),
    ],
)
def test_steps_of_a_training(options: dict[str, int], steps: int) -> None:
    assert optimizer_steps(**options) == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": 37, "epochs": -1}, "needs an end"),
        ({"batches": 37, "epochs": 3, "limit": 0.01}, "leaves none"),
    ],
)
def test_a_training_without_an_end_or_a_batch_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        optimizer_steps(**options)

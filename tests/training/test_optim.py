"""The schedule compared with its formula, and its errors."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from dolglab.errors import UserError
from dolglab.training.optim import cosine_factor, lr_factor, optimizer_steps, parameter_groups, warmup_cosine


def test_the_schedule_is_half_a_cosine() -> None:
    expected = [(1 + math.cos(math.pi * step / 10)) / 2 for step in range(11)]
    assert [cosine_factor(step, 10, 0, 0.0) for step in range(11)] == pytest.approx(expected)


def test_the_rate_warms_up_linearly_then_falls_to_the_final_share() -> None:
    factors = [cosine_factor(step, 100, 10, 0.1) for step in range(101)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1
    assert factors[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))


def test_the_schedule_keeps_the_ratio_of_two_groups() -> None:
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


def test_a_second_schedule_starts_after_the_first_one() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    (factor,) = warmup_cosine(optimizer, 30, warmup=0.1, final=0.2, restart=20).lr_lambdas
    first = [cosine_factor(step, 20, 2, 0.2) for step in range(20)]
    second = [cosine_factor(step, 10, 1, 0.2) for step in range(11)]
    assert [factor(step) for step in range(31)] == pytest.approx([*first, *second])


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"warmup": -0.1}, {"final": 2.0}])
def test_invalid_shares_are_refused(options: dict[str, float]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(UserError, match=r"optim\.schedule\.warmup"):
        warmup_cosine(optimizer, 10, **options)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"batches": 37, "epochs": 3}, 111),
        ({"batches": 37, "epochs": 3, "accumulate": 4}, 30),
        ({"batches": 37, "epochs": 3, "limit": 0.1}, 9),
        ({"batches": 37, "epochs": 3, "limit": 5}, 15),
        ({"batches": 3, "epochs": 2, "limit": 5}, 6),
        ({"batches": 37, "epochs": 3, "max_steps": 100}, 100),
        ({"batches": 37, "epochs": 3, "max_steps": 200}, 111),
        ({"batches": 37, "epochs": -1, "max_steps": 50}, 50),
    ],
)
def test_optimizer_steps_are_counted(options: dict[str, int], steps: int) -> None:
    assert optimizer_steps(**options) == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": 37, "epochs": -1}, "trainer.max_epochs or trainer.max_steps"),
        ({"batches": 37, "epochs": 3, "limit": 0.01}, "trainer.limit_train_batches=0.01"),
    ],
)
def test_a_training_without_an_end_or_a_batch_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        optimizer_steps(**options)


def layers() -> tuple[list[list[torch.nn.Parameter]], list[torch.nn.Parameter]]:
    """Three levels of a matrix and a bias each, the first of them frozen, and a new matrix and bias."""
    levels = [[torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(2))] for _ in range(4)]
    for parameter in levels[0]:
        parameter.requires_grad_(False)
    return levels[:3], levels[3]


def test_backbone_and_new_layers_have_separate_rates() -> None:
    backbone, new = layers()
    groups = parameter_groups(backbone, new, head_lr_scale=4)
    assert [(g["name"], g["lr_scale"], len(g["params"])) for g in groups] == [("backbone", 1, 4), ("new", 4, 2)]
    assert all("weight_decay" not in group for group in groups)


def test_rates_grow_with_depth_and_norms_do_not_decay() -> None:
    backbone, new = layers()
    groups = parameter_groups(backbone, new, layer_decay=0.5, decay_norms=False)
    found = {group["name"]: (group["lr_scale"], group.get("weight_decay"), len(group["params"])) for group in groups}
    assert found == {
        "level1": (0.25, None, 1),
        "level1_flat": (0.25, 0.0, 1),
        "level2": (0.5, None, 1),
        "level2_flat": (0.5, 0.0, 1),
        "new": (1.0, None, 1),
        "new_flat": (1.0, 0.0, 1),
    }


@pytest.mark.parametrize("options", [{"head_lr_scale": 0}, {"layer_decay": 0}, {"layer_decay": 1.5}])
def test_invalid_factors_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="layer_decay"):
        parameter_groups(*layers(), **options)


@pytest.mark.parametrize(("rule", "factor"), [(None, 1.0), ("linear", 4.0), ("sqrt", 2.0)])
def test_the_learning_rate_follows_the_global_batch_on_request(rule, factor) -> None:
    assert lr_factor(rule, 512, 128) == factor
    assert lr_factor(rule, 128, 128) == 1.0


@pytest.mark.parametrize(("rule", "reference"), [("square", 128), ("linear", 0), ("sqrt", 1.5)])
def test_unknown_rules_and_invalid_batches_are_refused(rule, reference) -> None:
    with pytest.raises(UserError, match=f"{rule} and {reference}"):
        lr_factor(rule, 512, reference)

"""Margin heads against values in float64 from an independent reference."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from src.errors import InputError
from src.losses.margin import ArcFace, CosFace, MarginHead

HEADS = [ArcFace, CosFace]


@pytest.mark.parametrize(("head", "key"), [(ArcFace, "arcface_m015_s30"), (CosFace, "cosface_m015_s30")])
def test_equals_the_reference(head: type[MarginHead], key: str, parity: Path) -> None:
    stored = np.load(parity / "dolg" / "margins.npz")
    layer = head(512, 100, margin=0.15, scale=30)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(stored["weight"]))
    logits = layer(torch.from_numpy(stored["features"]).float(), torch.from_numpy(stored["targets"]))
    error = np.abs(logits.detach().numpy() - stored[key]).max(1)
    assert error[:2].max() < 5e-3
    assert error[2:].max() < 1e-5


def test_arcface_is_cos_of_the_widened_angle() -> None:
    head = ArcFace(8, 5, margin=0.3, scale=10)
    x, labels = torch.randn(6, 8), torch.tensor([0, 1, 2, 3, 4, 0])
    cosine = torch.nn.functional.cosine_similarity(x[:, None], head.weight[None], dim=-1).double()
    expected = 10 * cosine
    for row, label in enumerate(labels):
        expected[row, label] = 10 * math.cos(math.acos(cosine[row, label].item()) + 0.3)
    torch.testing.assert_close(head(x, labels).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_finite_value_and_gradient_at_the_poles(head: type[MarginHead], sign: float) -> None:
    layer = head(16, 4)
    x = (sign * layer.weight.detach()[:1]).clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(layer(x, torch.tensor([0])), torch.tensor([0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert layer.weight.grad is not None
    assert torch.isfinite(layer.weight.grad).all()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_same_logits_under_autocast(head: type[MarginHead], dtype: torch.dtype) -> None:
    layer = head(32, 10)
    x, labels = torch.randn(4, 32), torch.tensor([0, 3, 5, 9])
    with torch.autocast("cpu", dtype):
        logits = layer(x, labels)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, layer(x, labels))


def test_a_zero_descriptor_is_finite() -> None:
    x = torch.zeros(1, 16, requires_grad=True)
    ArcFace(16, 4)(x, torch.tensor([0])).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_weights_are_initialised_the_same_way_each_time() -> None:
    torch.manual_seed(3)
    first = ArcFace(64, 1000).weight
    torch.manual_seed(3)
    second = ArcFace(64, 1000).weight
    assert torch.equal(first, second)
    assert first.norm(dim=1).mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "options",
    [
        {"dim": 0, "num_classes": 5},
        {"dim": 8, "num_classes": 1},
        {"dim": 8, "num_classes": 5, "margin": 3.2},
        {"dim": 8, "num_classes": 5, "margin": -0.1},
        {"dim": 8, "num_classes": 5, "scale": 0},
    ],
)
@pytest.mark.parametrize("head", HEADS)
def test_refuses_what_makes_no_sense(head: type[MarginHead], options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        head(**options)

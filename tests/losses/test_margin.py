"""Margin heads compared with values of an independent reference, and their common behaviour."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dolglab.errors import UserError
from dolglab.losses.margin import (
    ArcFace,
    CosFace,
    CurricularFace,
    DynamicArcFace,
    MarginHead,
    Softmax,
    SubCenterArcFace,
    dynamic_margins,
)

SIZES = torch.tensor([1, 2, 30, 400, 5, 6, 7, 8, 9, 10])
HEADS = {
    "arcface": ArcFace,
    "cosface": CosFace,
    "curricularface": CurricularFace,
    "subcenter": SubCenterArcFace,
    "dynamic": DynamicArcFace,
    "softmax": Softmax,
}
heads = pytest.mark.parametrize("head", [pytest.param(head, id=name) for name, head in HEADS.items()])


def reference(parity: Path) -> tuple[dict[str, np.ndarray], Tensor, Tensor]:
    stored = np.load(parity / "dolg" / "margins.npz")
    return stored, torch.from_numpy(stored["features"]).float(), torch.from_numpy(stored["targets"])


def of_ten_classes(head: type[MarginHead], dim: int) -> MarginHead:
    return head(dim, 10, **({"class_sizes": SIZES} if head is DynamicArcFace else {}))


def filled(head: MarginHead, weight: np.ndarray) -> MarginHead:
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
    return head


def check(logits: Tensor, expected: np.ndarray) -> None:
    """Rows 0 and 1 have the target cosines +1 and -1, where float32 is coarse."""
    error = np.abs(logits.detach().numpy() - expected).max(1)
    assert error[:2].max() < 5e-3
    assert error[2:].max() < 1e-5


@pytest.mark.parametrize(
    ("head", "key"),
    [
        (ArcFace, "arcface_m015_s30"),
        (CosFace, "cosface_m015_s30"),
        (partial(SubCenterArcFace, centres=1), "arcface_m015_s30"),
        (partial(DynamicArcFace, margin=0.15, max_margin=0.15, class_sizes=torch.arange(1, 101)), "arcface_m015_s30"),
    ],
)
def test_equals_the_reference(head: type[MarginHead], key: str, parity: Path) -> None:
    stored, features, targets = reference(parity)
    check(filled(head(512, 100), stored["weight"])(features, targets), stored[key])


def test_softmax_is_the_scaled_cosine(parity: Path) -> None:
    stored, features, targets = reference(parity)
    check(filled(Softmax(512, 100), stored["weight"])(features, targets), 30 * stored["cosine"])


def test_curricularface_equals_the_released_head_over_two_calls(parity: Path) -> None:
    stored, features, targets = reference(parity)
    head = filled(CurricularFace(512, 100), stored["weight"])
    for call in (1, 2):
        check(head(features, targets), stored[f"official_call{call}"])
        np.testing.assert_allclose(head.mean_cosine.numpy(), stored[f"official_t_after{call}"], rtol=1e-5)
    head.eval()(features, targets)
    np.testing.assert_allclose(head.mean_cosine.numpy(), stored["official_t_after2"], rtol=1e-5)


def test_curricularface_weighs_a_hard_negative_by_the_mean_cosine() -> None:
    head = CurricularFace(2, 3, margin=0.5, scale=1)
    angles = [0.3, 0.6, 1.5]
    head.weight.data = torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])
    head.mean_cosine.fill_(0.4)
    logits = head.eval()(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))[0]
    hard, easy = math.cos(0.6), math.cos(1.5)
    assert hard > math.cos(0.3 + 0.5) > easy
    expected = [math.cos(0.8), hard * (0.4 + hard), easy]
    torch.testing.assert_close(logits, torch.tensor(expected))


def test_the_nearest_centre_of_a_class_counts() -> None:
    head = SubCenterArcFace(4, 3, centres=2, margin=0.0, scale=1)
    x = torch.randn(5, 4)
    every = torch.nn.functional.cosine_similarity(x[:, None], head.weight[None], dim=-1)
    expected = torch.stack([every[:, [2 * c, 2 * c + 1]].max(1).values for c in range(3)], 1)
    torch.testing.assert_close(head.cosine(x), expected)


def test_small_classes_get_large_margins() -> None:
    margins = dynamic_margins(SIZES.float(), 0.05, 0.5, 0.25)
    assert margins[0].item() == pytest.approx(0.5)
    assert margins[3].item() == pytest.approx(0.05)
    for size, margin in zip(SIZES.tolist(), margins.tolist(), strict=True):
        share = (size**-0.25 - 400**-0.25) / (1 - 400**-0.25)
        assert margin == pytest.approx(0.05 + 0.45 * share, abs=1e-6)
    assert torch.isfinite(dynamic_margins(torch.full((4,), 7.0), 0.05, 0.5, 0.25)).all()
    head = DynamicArcFace(8, 10, class_sizes=SIZES, scale=1)
    x, labels = torch.randn(10, 8), torch.arange(10)
    cosine = head.cosine(x).double()
    expected = torch.cos(torch.acos(cosine.diagonal()) + margins.double())
    torch.testing.assert_close(head(x, labels).double().diagonal(), expected, rtol=1e-4, atol=1e-5)


def test_arcface_is_cos_of_the_widened_angle() -> None:
    head = ArcFace(8, 5, margin=0.3, scale=10)
    x, labels = torch.randn(6, 8), torch.tensor([0, 1, 2, 3, 4, 0])
    cosine = torch.nn.functional.cosine_similarity(x[:, None], head.weight[None], dim=-1).double()
    expected = 10 * cosine
    for row, label in enumerate(labels):
        expected[row, label] = 10 * math.cos(math.acos(cosine[row, label].item()) + 0.3)
    torch.testing.assert_close(head(x, labels).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "head",
    [
        partial(ArcFace, 2, 3, 0.5, 1.0),
        partial(SubCenterArcFace, 2, 3, 0.5, 1.0, centres=1),
        partial(DynamicArcFace, 2, 3, 0.5, 1.0, max_margin=0.5, class_sizes=torch.tensor([4, 4, 4])),
    ],
)
@pytest.mark.parametrize("monotone", [False, True])
def test_beyond_pi_minus_the_margin_the_documented_rule_holds(head: partial[MarginHead], monotone: bool) -> None:
    layer = head(monotone=monotone)
    layer.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    angles = torch.linspace(0.1, math.pi - 0.1, 100, dtype=torch.float64)
    x = torch.stack([angles.cos(), angles.sin()], 1)
    target = layer(x, torch.zeros(100, dtype=torch.int64))[:, 0].double()
    within, beyond = angles < math.pi - 0.5, angles > math.pi - 0.5
    torch.testing.assert_close(target[within], torch.cos(angles + 0.5)[within], rtol=0, atol=1e-5)
    expected = angles.cos() - 0.5 * math.sin(0.5) if monotone else torch.cos(angles + 0.5)
    torch.testing.assert_close(target[beyond], expected[beyond], rtol=0, atol=1e-5)
    assert bool((target.diff() < 0).all()) is monotone


@heads
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_values_and_gradients_are_finite_at_the_poles(head: type[MarginHead], sign: float) -> None:
    layer = of_ten_classes(head, 16)
    x = (sign * layer.weight.detach()[:1]).clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(layer(x, torch.tensor([0])), torch.tensor([0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert layer.weight.grad is not None
    assert torch.isfinite(layer.weight.grad).all()


@heads
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_are_the_same_and_gradients_finite_under_autocast(head: type[MarginHead], dtype: torch.dtype) -> None:
    layer = of_ten_classes(head, 32).eval()
    x, labels = torch.randn(4, 32, requires_grad=True), torch.tensor([0, 3, 5, 9])
    with torch.autocast("cpu", dtype):
        logits = layer(x, labels)
        torch.nn.functional.cross_entropy(logits, labels).backward()
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, layer(x, labels), rtol=0, atol=1e-3)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_a_zero_descriptor_gives_finite_logits() -> None:
    x = torch.zeros(1, 16, requires_grad=True)
    ArcFace(16, 4)(x, torch.tensor([0])).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_weights_are_initialised_reproducibly() -> None:
    torch.manual_seed(3)
    first = ArcFace(64, 1000).weight
    torch.manual_seed(3)
    second = ArcFace(64, 1000).weight
    assert torch.equal(first, second)
    assert first.norm(dim=1).mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("head", "options"),
    [
        *((head, {"dim": 0, "num_classes": 10}) for head in HEADS.values()),
        *((head, {"dim": 8, "num_classes": 1}) for head in HEADS.values()),
        *((head, {"dim": 8, "num_classes": 10, "scale": 0}) for head in HEADS.values()),
        *((head, {"dim": 8, "num_classes": 10, "margin": 3.2}) for head in HEADS.values() if head is not Softmax),
        *((head, {"dim": 8, "num_classes": 10, "margin": -0.1}) for head in HEADS.values() if head is not Softmax),
        (CurricularFace, {"dim": 8, "num_classes": 10, "momentum": 0}),
        (SubCenterArcFace, {"dim": 8, "num_classes": 10, "centres": 0}),
        (DynamicArcFace, {"dim": 8, "num_classes": 10, "class_sizes": None}),
        (DynamicArcFace, {"dim": 8, "num_classes": 10, "class_sizes": SIZES[:3]}),
        (DynamicArcFace, {"dim": 8, "num_classes": 10, "max_margin": 4}),
        (DynamicArcFace, {"dim": 8, "num_classes": 10, "power": 0}),
    ],
)
def test_invalid_settings_are_refused(head: type[MarginHead], options: dict[str, float]) -> None:
    sizes = {"class_sizes": SIZES} if head is DynamicArcFace and options["num_classes"] == 10 else {}
    with pytest.raises(UserError):
        head(**{**sizes, **options})

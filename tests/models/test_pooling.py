"""GeM compared with plain numpy, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dolglab.errors import UserError
from dolglab.models.pooling import RMAC, AvgPool, GeM, MaxPool, gem, rmac_regions


def reference(x: np.ndarray, p: float, eps: float = 1e-6) -> np.ndarray:
    return (np.maximum(x.astype(np.float64), eps) ** p).mean((-2, -1)) ** (1 / p)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(p=st.floats(0.5, 8), height=st.integers(1, 9), width=st.integers(1, 9), scale=st.floats(1e-3, 50))
def test_equals_the_formula(p: float, height: int, width: int, scale: float) -> None:
    x = np.random.default_rng(0).random((2, 3, height, width), np.float32) * scale - 0.1 * scale
    torch.testing.assert_close(gem(torch.from_numpy(x), p).double().numpy(), reference(x, p), rtol=2e-5, atol=1e-7)


def test_p_of_one_is_average_pooling_and_large_p_approaches_max_pooling() -> None:
    x = torch.rand(2, 5, 7, 6) * 9 + 0.01
    torch.testing.assert_close(gem(x, 1.0), x.mean((-2, -1)))
    gaps = [(x.amax((-2, -1)) - gem(x, p)).max().item() for p in (3.0, 10.0, 100.0, 10000.0)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-2


def test_gradients_equal_those_of_the_formula() -> None:
    x = (torch.rand(2, 3, 4, 4) * 5).requires_grad_()
    p = torch.tensor([3.0], requires_grad=True)
    gem(x, p).square().sum().backward()
    y = x.detach().double().requires_grad_()
    q = p.detach().double().requires_grad_()
    y.clamp(min=1e-6).pow(q).mean((-2, -1)).pow(1 / q).square().sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert p.grad is not None
    assert q.grad is not None
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pooling_is_float32_and_finite_under_autocast(dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 8, 8) * 300
    with torch.autocast("cpu", dtype):
        pooled = GeM(3)(x)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, gem(x, 3.0))


def test_an_all_zero_map_has_a_finite_gradient() -> None:
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    pooling = GeM(2)
    pooling(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert pooling.p.grad is not None
    assert torch.isfinite(pooling.p.grad).all()


@pytest.mark.parametrize(
    ("options", "count", "learns"), [({}, 1, True), ({"learnable": False}, 1, False), ({"per_channel": True}, 7, True)]
)
def test_learnable_exponents_have_the_right_shape(options: dict[str, bool], count: int, learns: bool) -> None:
    pooling = GeM(7, p=2.5, **options)
    assert pooling.p.shape == (count,)
    assert pooling.p.requires_grad is learns
    assert pooling(torch.rand(2, 7, 3, 4)).shape == (2, 7)


def test_per_channel_exponents_act_on_their_own_channel() -> None:
    x = torch.rand(1, 2, 4, 4) * 3
    pooling = GeM(2, per_channel=True)
    with torch.no_grad():
        pooling.p.copy_(torch.tensor([1.0, 6.0]))
    torch.testing.assert_close(pooling(x)[0], torch.stack([gem(x, 1.0)[0, 0], gem(x, 6.0)[0, 1]]))


@pytest.mark.parametrize("options", [{"p": 0.0}, {"p": -3.0}, {"eps": 0.0}])
def test_invalid_settings_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="GeM"):
        GeM(3, **options)


def test_average_and_maximum_equal_their_formulas() -> None:
    x = torch.randn(2, 5, 7, 6)
    torch.testing.assert_close(AvgPool(5)(x), x.mean((-2, -1)))
    torch.testing.assert_close(MaxPool(5)(x), x.amax((-2, -1)))


def test_regions_lie_inside_and_cover_the_map() -> None:
    for height, width in [(1, 1), (7, 7), (5, 9), (12, 8), (1, 6), (30, 4)]:
        for top, left, side in rmac_regions(height, width, 3):
            assert 0 <= top <= height - side
            assert 0 <= left <= width - side
        largest = [(t, x) for t, x, side in rmac_regions(height, width, 1) if side == min(height, width)]
        covered = {t + i for t, _ in largest for i in range(min(height, width))}
        assert height > width or covered == set(range(height))
    assert [len(rmac_regions(8, 8, level)) for level in (1, 2, 3)] == [1, 1 + 4, 1 + 4 + 9]


def test_rmac_sums_normalised_maxima() -> None:
    x = torch.rand(2, 3, 6, 9)
    expected = torch.nn.functional.normalize(x.amax((-2, -1)))
    for top, left, side in rmac_regions(6, 9, 2):
        expected = expected + torch.nn.functional.normalize(
            x[:, :, top : top + side, left : left + side].amax((-2, -1))
        )
    torch.testing.assert_close(RMAC(3, levels=2)(x), expected)
    with pytest.raises(UserError, match="level"):
        RMAC(3, levels=0)

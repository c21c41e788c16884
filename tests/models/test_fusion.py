"""The closed form of orthogonal fusion compared with the paper's equations at every position."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dolglab.errors import UserError
from dolglab.models.fusion import concat_fusion, hadamard_fusion, orthogonal_fusion


def textbook(local: torch.Tensor, global_: torch.Tensor) -> torch.Tensor:
    """Equations 3 to 5 with the projection at every position, in float64."""
    local, global_ = local.double(), global_.double()
    result = []
    for image, g in zip(local, global_, strict=True):
        rows = []
        for f in image.flatten(1).T:
            rows.append(f - (f @ g) / (g @ g) * g)
        result.append(torch.cat([g, torch.stack(rows).mean(0)]))
    return torch.stack(result)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(channels=st.integers(1, 16), height=st.integers(1, 5), width=st.integers(1, 5), batch=st.integers(1, 3))
def test_equals_the_projection_at_every_position(channels: int, height: int, width: int, batch: int) -> None:
    generator = torch.Generator().manual_seed(channels + 17 * height)
    local = torch.randn(batch, channels, height, width, generator=generator)
    global_ = torch.randn(batch, channels, generator=generator) + 0.1
    expected = textbook(local, global_)
    torch.testing.assert_close(orthogonal_fusion(local, global_).double(), expected, rtol=1e-4, atol=1e-5)


def test_the_local_half_is_orthogonal_to_the_global_half() -> None:
    fused = orthogonal_fusion(torch.randn(4, 32, 6, 5), torch.randn(4, 32))
    assert (fused[:, :32] * fused[:, 32:]).sum(-1).abs().max() < 1e-5


def test_a_zero_global_feature_projects_nothing_out() -> None:
    local = torch.randn(2, 8, 3, 3, requires_grad=True)
    global_ = torch.zeros(2, 8, requires_grad=True)
    fused = orthogonal_fusion(local, global_)
    torch.testing.assert_close(fused[:, 8:], local.mean((-2, -1)))
    fused.sum().backward()
    assert local.grad is not None
    assert global_.grad is not None
    assert torch.isfinite(local.grad).all()
    assert torch.isfinite(global_.grad).all()


def test_no_map_sized_temporary_is_made() -> None:
    local, global_ = torch.randn(2, 64, 16, 16), torch.randn(2, 64)
    with torch.profiler.profile(profile_memory=True) as profile:
        orthogonal_fusion(local, global_)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < local.numel() * local.element_size() / 8


def test_concat_and_hadamard_equal_their_formulas() -> None:
    local, global_ = torch.randn(2, 8, 3, 4), torch.randn(2, 8)
    mean = local.mean((-2, -1))
    torch.testing.assert_close(concat_fusion(local, global_), torch.cat([global_, mean], 1))
    torch.testing.assert_close(hadamard_fusion(local, global_), global_ * mean)


@pytest.mark.parametrize("fusion", [orthogonal_fusion, concat_fusion, hadamard_fusion])
def test_fusion_is_float32_for_any_input(fusion) -> None:
    fused = fusion(torch.randn(2, 8, 3, 4).bfloat16(), torch.randn(2, 8).bfloat16())
    assert fused.dtype == torch.float32


def test_gem_pools_the_orthogonal_map() -> None:
    local, global_ = torch.randn(2, 6, 4, 5), torch.randn(2, 6)
    expected = []
    for image, g in zip(local.double(), global_.double(), strict=True):
        flat = image.flatten(1).T
        rows = flat - (flat @ g)[:, None] / (g @ g) * g
        expected.append(torch.cat([g, (rows.clamp(min=1e-6) ** 3).mean(0) ** (1 / 3)]))
    found = orthogonal_fusion(local, global_, pool="gem").double()
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)
    pooled = (local.double().clamp(min=1e-6) ** 3).mean((-2, -1)) ** (1 / 3)
    torch.testing.assert_close(hadamard_fusion(local, global_, "gem").double(), pooled * global_, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        concat_fusion(local, global_, "gem").double(), torch.cat([global_.double(), pooled], 1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("fusion", [orthogonal_fusion, concat_fusion, hadamard_fusion])
def test_another_pooling_is_refused(fusion: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(UserError, match=r"fusion\.pool"):
        fusion(torch.randn(1, 4, 2, 2), torch.randn(1, 4), pool="max")

"""The local branch compared with a plain computation of the same convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dolglab.errors import UserError
from dolglab.models.local_branch import ASPP, DilatedConv, LocalBranch


@pytest.mark.parametrize("pointwise", [False, True])
def test_aspp_is_the_concatenation_of_its_branches(pointwise: bool) -> None:
    aspp = ASPP(6, 8, dilations=(1, 2), pointwise=pointwise)
    x = torch.randn(2, 6, 5, 7)
    pooled = F.relu(F.conv2d(x.mean((2, 3), keepdim=True), aspp.pool.weight, aspp.pool.bias)).repeat(1, 1, 5, 7)
    parts = [pooled]
    for branch in aspp.branches:
        padding = 0 if branch.kernel_size == (1, 1) else branch.dilation
        parts.append(F.conv2d(x, branch.weight, branch.bias, padding=padding, dilation=branch.dilation))
    assert len(parts) == (4 if pointwise else 3)
    expected = F.relu(F.conv2d(torch.cat(parts, 1), aspp.project.weight, aspp.project.bias))
    torch.testing.assert_close(aspp(x), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 3), (24, 32)])
@pytest.mark.parametrize("batch", [1, 3])
def test_any_map_size_and_a_batch_of_one_work(size: tuple[int, int], batch: int) -> None:
    branch = LocalBranch(5, 8).eval()
    out = branch(torch.randn(batch, 5, *size))
    assert out.shape == (batch, 8, *size)
    assert torch.isfinite(out).all()


def test_local_features_are_scores_times_unit_features() -> None:
    branch = LocalBranch(5, 8).eval()
    x = torch.randn(2, 5, 4, 6)
    normalised, score = branch.attend(x)
    assert score is not None
    torch.testing.assert_close(normalised.norm(dim=1), torch.ones(2, 4, 6))
    assert score.shape == (2, 1, 4, 6)
    assert (score > 0).all()
    torch.testing.assert_close(branch(x).norm(dim=1, keepdim=True), score)


@pytest.mark.parametrize("dilations", [(), (0,), (6, -1)])
def test_invalid_dilations_are_refused(dilations: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="dilations"):
        ASPP(4, 8, dilations)


@pytest.mark.parametrize("size", [(14, 14), (1, 1), (3, 40), (7, 12), (32, 32), (13, 6)])
@pytest.mark.parametrize("dilation", [1, 6, 12, 18])
def test_skipping_taps_on_padding_is_exact(size: tuple[int, int], dilation: int) -> None:
    conv = DilatedConv(3, 4, dilation).double()
    plain = torch.nn.Conv2d(3, 4, 3, padding=dilation, dilation=dilation).double()
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    for ours, theirs in zip(
        [conv(x), *torch.autograd.grad(conv(x).square().sum(), [x, conv.weight, conv.bias])],
        [plain(x), *torch.autograd.grad(plain(x).square().sum(), [x, plain.weight, plain.bias])],
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_context_and_attention_are_optional() -> None:
    x = torch.randn(2, 5, 4, 6)
    for aspp, attention in [(False, True), (True, False), (False, False)]:
        branch = LocalBranch(5, 8, aspp=aspp, attention=attention).eval()
        assert branch(x).shape == (2, 8, 4, 6)
        assert (branch.attend(x)[1] is not None) is attention
    assert (LocalBranch(5, 8, attention=False)(x) >= 0).all()

"""The losses of a local head compared with numpy loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dolglab.errors import UserError
from dolglab.losses.local import LocalLoss, attended_mean, reconstruction_error

B, C, H, W, N = 3, 4, 2, 5, 6


def outputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Map, reconstruction, scores, labels."""
    maps = torch.randn(B, C, H, W), torch.randn(B, C, H, W, requires_grad=True)
    return *maps, torch.rand(B, 1, H, W) + 0.1, torch.tensor([0, 5, 5])


def test_reconstruction_is_the_mean_over_all_values() -> None:
    features, reconstruction, _, _ = outputs()
    f, r = features.double().numpy(), reconstruction.detach().double().numpy()
    total = 0.0
    for b, c, y, x in np.ndindex(B, C, H, W):
        total += (f[b, c, y, x] - r[b, c, y, x]) ** 2
    assert reconstruction_error(features, reconstruction).item() == pytest.approx(total / (B * C * H * W), rel=1e-6)


def gathered(features: torch.Tensor, scores: torch.Tensor) -> np.ndarray:
    f, s = features.detach().double().numpy(), scores.detach().double().numpy()
    out = np.zeros((B, C))
    for b, y, x in np.ndindex(B, H, W):
        out[b] += s[b, 0, y, x] * f[b, :, y, x] / np.linalg.norm(f[b, :, y, x]) / (H * W)
    return out


def test_attention_averages_unit_features_by_score() -> None:
    _, reconstruction, scores, _ = outputs()
    found = attended_mean(reconstruction, scores).detach().numpy()
    np.testing.assert_allclose(found, gathered(reconstruction, scores), rtol=1e-5)


def test_a_position_without_activation_has_no_effect() -> None:
    dead = torch.zeros(1, C, 1, 1, requires_grad=True)
    gathered = attended_mean(dead.relu(), torch.ones(1, 1, 1, 1))
    gathered.sum().backward()
    assert torch.equal(gathered, torch.zeros(1, C))
    assert torch.equal(dead.grad, torch.zeros(1, C, 1, 1))


@pytest.mark.parametrize(("weights", "factors"), [({}, (10, 1)), ({"reconstruction": 2.0, "attention": 0.5}, (2, 0.5))])
def test_the_loss_is_the_weighted_sum(weights: dict[str, float], factors: tuple[float, float]) -> None:
    loss = LocalLoss(C, N, **weights)
    features, reconstruction, scores, labels = outputs()
    weight, bias = (p.detach().double().numpy() for p in loss.classifier.parameters())
    logits = gathered(reconstruction, scores) @ weight.T + bias
    entropy = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True)])
    error = reconstruction_error(features, reconstruction).item()
    terms = loss(features, reconstruction, scores, labels)
    assert terms.reconstruction.item() == pytest.approx(error)
    assert terms.attention.item() == pytest.approx(entropy, rel=1e-5)
    assert terms.loss.item() == pytest.approx(factors[0] * error + factors[1] * entropy, rel=1e-5)
    assert not terms.reconstruction.requires_grad
    assert not terms.attention.requires_grad


def test_a_weight_of_zero_leaves_no_parameter_without_a_gradient() -> None:
    """DDP waits for the gradient of every parameter."""
    loss = LocalLoss(C, N, attention=0.0)
    loss(*outputs()).loss.backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in loss.parameters())


def test_the_losses_are_float32_under_autocast() -> None:
    loss = LocalLoss(C, N)
    features, reconstruction, scores, labels = outputs()
    half = [x.detach().bfloat16() for x in (features, reconstruction, scores)]
    expected = loss(*(x.float() for x in half), labels)
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(*half, labels)
    for found, value in [(terms.loss, expected.loss), (terms.attention, expected.attention)]:
        assert found.dtype == torch.float32
        assert torch.equal(found, value)


@pytest.mark.parametrize("weights", [{"reconstruction": -1.0}, {"attention": -0.5}])
def test_negative_weights_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"auxiliary\.reconstruction"):
        LocalLoss(C, N, **weights)

"""The multi-similarity loss and its miner compared with a loop over pairs."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dolglab.errors import UserError
from dolglab.losses.pairs import MultiSimilarity


def loop(x: Tensor, labels: Tensor, alpha: float, beta: float, base: float, epsilon: float) -> float:
    """Equations 11, 12 and 15 of Wang et al., 2019, image by image."""
    x = F.normalize(x.double())
    cosine = (x @ x.T).tolist()
    count, total = len(x), 0.0
    for i in range(count):
        positive = [cosine[i][j] for j in range(count) if j != i and labels[j] == labels[i]]
        negative = [cosine[i][j] for j in range(count) if labels[j] != labels[i]]
        if not positive or not negative:
            continue
        hard_positive = [c for c in positive if c < max(negative) + epsilon]
        hard_negative = [c for c in negative if c > min(positive) - epsilon]
        total += math.log1p(sum(math.exp(-alpha * (c - base)) for c in hard_positive)) / alpha
        total += math.log1p(sum(math.exp(beta * (c - base)) for c in hard_negative)) / beta
    return total / count


@pytest.mark.parametrize("options", [(1.0, 50.0, 0.0, 0.1), (2.0, 40.0, 0.5, 0.05)])
def test_equals_a_loop_over_pairs(options: tuple[float, float, float, float]) -> None:
    x, labels = torch.randn(12, 5, requires_grad=True), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    result = MultiSimilarity(5, 4, *options).loss(x, labels)
    assert float(result.loss.detach()) == pytest.approx(loop(x.detach(), labels, *options), rel=1e-4)
    result.loss.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_logged_values_are_those_of_pairs() -> None:
    x = F.normalize(torch.randn(6, 4))
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    result = MultiSimilarity(4, 3).loss(x, labels)
    pairs = [(i, j) for i, j in product(range(6), range(6)) if i != j]
    target = [float(x[i] @ x[j]) for i, j in pairs if i // 2 == j // 2]
    others = [float(x[i] @ x[j]) for i, j in pairs if i // 2 != j // 2]
    assert float(result.target_cosine) == pytest.approx(sum(target) / len(target), abs=1e-6)
    assert float(result.nontarget_cosine) == pytest.approx(sum(others) / len(others), abs=1e-6)
    assert sorted(result.cosine[result.at == 0, 0].tolist()) == pytest.approx(sorted(target), abs=1e-6)
    assert sorted(result.cosine[result.at < 0, 0].tolist()) == pytest.approx(sorted(others), abs=1e-6)
    nearest = [max((k for k in range(6) if k != i), key=lambda k, i=i: float(x[i] @ x[k])) for i in range(6)]
    assert float(result.accuracy) == pytest.approx(sum(i // 2 == j // 2 for i, j in enumerate(nearest)) / 6)


def test_a_batch_without_pairs_has_no_loss() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    result = MultiSimilarity(4, 3).loss(x, torch.tensor([0, 1, 2]))
    result.loss.backward()
    assert float(result.loss.detach()) == 0
    assert x.grad is not None


def test_is_the_same_under_autocast() -> None:
    x, labels = torch.randn(8, 16), torch.arange(8) // 2
    head = MultiSimilarity(16, 4)
    expected = head.loss(x, labels).loss
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head.loss(x, labels).loss, expected)


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"beta": -1.0}, {"epsilon": -0.1}])
def test_invalid_settings_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"margin\.alpha"):
        MultiSimilarity(4, 3, **options)

"""Clipping of gradients in the training module."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from dolglab.data.augment import Augmentation
from dolglab.losses.local import LocalLoss
from dolglab.losses.margin import ArcFace
from dolglab.models.backbone import Backbone
from dolglab.models.delg import DELG, LocalHead
from dolglab.training.module import LandmarkModule
from dolglab.training.optim import warmup_cosine


def norm(parameters: list[nn.Parameter]) -> float:
    return math.sqrt(sum(float(p.grad.double().square().sum()) for p in parameters if p.grad is not None))


@pytest.mark.parametrize("spread", [False, True])
def test_the_local_head_is_clipped_separately(spread: bool) -> None:
    """A large gradient of the reconstruction must not shorten the backbone's step."""
    model = DELG(Backbone("resnet18.tv_in1k", pretrained=False), local=partial(LocalHead, code=4, hidden=4), dim=8)
    head, auxiliary = ArcFace(8, 3), LocalLoss(256, 3)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    parallel = 1.0 if spread else None
    module = LandmarkModule(model, head, Augmentation(), optimizer, warmup_cosine, auxiliary, parallel)
    local = [*model.local.parameters(), *auxiliary.parameters()]
    others = [p for p in module.parameters() if not any(p is mine for mine in local)]
    steep, gentle = ([size * torch.randn_like(p) for p in part] for part, size in [(local, 1000.0), (others, 0.01)])
    for p, grad in zip([*local, *others], [*steep, *gentle], strict=True):
        p.grad = grad.clone()
    most = 2 * norm(others)
    module.configure_gradient_clipping(optimizer(others), most, "norm")
    assert norm(local) == pytest.approx(most, rel=1e-3)
    for p, grad in zip(others, gentle, strict=True):
        assert torch.equal(p.grad, grad)
    module.configure_gradient_clipping(optimizer(others), most / 4, "norm")
    assert norm(others) == pytest.approx(most / 4, rel=1e-3)

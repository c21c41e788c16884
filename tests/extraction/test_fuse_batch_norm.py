"""Batch norms folded into convolutions give the same network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dolglab.extraction.extractor import fuse_batch_norm
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import DOLG


def norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def stirred(model: nn.Module) -> nn.Module:
    """With statistics other than those of a new network."""
    for norm in norms(model):
        nn.init.normal_(norm.running_mean, 0, 0.1)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.1)
    return model


@pytest.mark.parametrize("name", ["resnet18.tv_in1k", "tf_efficientnet_lite0.in1k", "vit_tiny_patch16_224"])
def test_folding_leaves_no_norm_and_the_same_descriptors(name: str) -> None:
    depths = {"depths": (5, 11), "reductions": (16, 16)} if name.startswith("vit") else {}
    options = {"dynamic_img_size": True} if name.startswith("vit") else {}
    model = stirred(DOLG(Backbone(name, pretrained=False, options=options, **depths), hidden=16, dim=8))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lean = fuse_batch_norm(model)
    assert norms(lean) == []
    assert not lean.training
    images = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        torch.testing.assert_close(lean(images), model.eval()(images), rtol=1e-4, atol=1e-5)
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


class Twice(nn.Module):
    """A convolution whose output has two users, which must not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.conv(images)
        return F.relu(self.norm(x)) + x


def test_a_network_that_cannot_be_folded_is_unchanged() -> None:
    model = stirred(Twice()).eval()
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(fuse_batch_norm(model)(images), model(images))
    plain = nn.Sequential(nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        torch.testing.assert_close(fuse_batch_norm(plain)(images), plain(images))

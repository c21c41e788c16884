"""Batch norm over all processes does not change a network."""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn

from dolglab.models.backbone import Backbone
from dolglab.training.sync_batchnorm import SyncBatchNorm


class Wrapped(L.LightningModule):
    """An EfficientNet, whose batch norms have activations, and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone("tf_efficientnet_lite0.in1k", pretrained=False)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.backbone(images).global_.mean((2, 3))[:, :4])


def run(model: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.eval()(images)


def test_a_network_is_unchanged_with_synchronised_batch_norm_and_afterwards() -> None:
    torch.manual_seed(0)
    model, images = Wrapped(), torch.randn(2, 3, 64, 64)
    expected, layers = run(model, images), {name: type(module) for name, module in model.named_modules()}
    plugin = SyncBatchNorm()
    synced = plugin.apply(model)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in synced.modules()) > 40
    torch.testing.assert_close(run(synced, images), expected)
    # Values learned in between are kept.
    with torch.no_grad():
        synced.get_submodule("norm").bias.add_(1)
        synced.get_submodule("norm").running_mean.sub_(1)
    learned = run(synced, images)
    plain = plugin.revert(synced)
    assert {name: type(module) for name, module in plain.named_modules()} == layers
    torch.testing.assert_close(run(plain, images), learned)
    assert (learned - expected).abs().min() > 0.5


def test_lightnings_own_converter_changes_the_network() -> None:
    """If this fails, Lightning or timm has fixed the problem, and the plugin can be removed."""
    torch.manual_seed(0)
    model, images = Wrapped(), torch.randn(2, 3, 64, 64)
    expected = run(model, images)
    assert (run(TorchSyncBatchNorm().apply(model), images) - expected).abs().max() > 0.1

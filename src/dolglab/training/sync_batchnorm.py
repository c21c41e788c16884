"""Batch norm over all processes, for networks whose batch norm includes an activation."""

from __future__ import annotations

from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(TorchSyncBatchNorm):
    """Implements `trainer.sync_batchnorm=true` with timm's converter.

    torch's converter, which Lightning 2.6.6 uses, turns timm's `BatchNormAct2d` (1.0.31) into a plain batch norm
    without its activation, so an EfficientNet would become another network.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """The model with each batch norm computed over all processes."""
        self._plain = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
        return convert_sync_batchnorm(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """The model with its original layers and their learned values."""
        for name, plain in self._plain.items():
            synced = model.get_submodule(name)
            for key, value in (*synced.named_parameters(), *synced.named_buffers()):
                setattr(plain, key, value)
            model.set_submodule(name, plain.train(synced.training))
        return model

"""Batch norm over all processes, for networks whose batch norm has an activation in it."""

from __future__ import annotations

from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(TorchSyncBatchNorm):
    """What `trainer.sync_batchnorm=true` does, by timm's converter.

    torch's, which Lightning (2.6.6) takes, makes a plain batch norm of timm's `BatchNormAct2d` (1.0.31), without its
    activation: an EfficientNet would train as another network, and be tested as one.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """The model with each batch norm taken over all processes."""
        self._plain = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
        return convert_sync_batchnorm(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """The model with the layers that it had before, and what they have learned since."""
        for name, plain in self._plain.items():
            synced = model.get_submodule(name)
            for key, value in (*synced.named_parameters(), *synced.named_buffers()):
                setattr(plain, key, value)
            model.set_submodule(name, plain.train(synced.training))
        return model

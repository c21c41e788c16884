"""How large the gradients are."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from src.training.module import LandmarkModule


class GradientNorm(Callback):
    """Logs the norm of the whole network's gradient, before it is clipped, at the steps that are logged."""

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Gradients are averaged over the processes by now, and unscaled."""
        if isinstance(pl_module, LandmarkModule) and is_logged(trainer, trainer.global_step):
            pl_module.log("train/gradient_norm", pl_module.gradient_norm())


def is_logged(trainer: L.Trainer, step: int) -> bool:
    """Whether Lightning will log an optimizer step, counted from 0."""
    every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
    return every > 0 and (step + 1) % every == 0

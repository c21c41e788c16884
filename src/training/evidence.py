"""What is kept of a loss that is not a number, to look into it afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from src.contracts import Batch
from src.training.module import NotFiniteError


class KeepBatch(Callback):
    """Writes the batch at which a loss was not finite, with the weights that it met, to `not_finite.rankN.pt`."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.batch: Batch | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Hold on to it."""
        self.batch = batch

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """The error says where the batch is."""
        if not isinstance(exception, NotFiniteError) or self.batch is None:
            return
        path = self.run / f"not_finite.rank{trainer.global_rank}.pt"
        torch.save({"batch": _plain(self.batch), "state_dict": pl_module.state_dict()}, path)
        exception.args = (f"{exception}; the batch and the weights are in {path}",)


def _plain(batch: Batch) -> dict[str, Any]:
    """Tensors and lists, which `torch.load` reads without running code; ids as hexadecimal digits."""
    ids = [f"{int(sample):016x}" for sample in batch.ids]
    return {"images": batch.images, "labels": batch.labels, "draws": batch.draws, "ids": ids}

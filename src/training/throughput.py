"""How fast a run trains, what it waits for, and what memory it holds."""

from __future__ import annotations

import resource
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from src.contracts import Batch


class Throughput(Callback):
    """Logs images a second over all processes, without the time that validation takes, the share of a step that the
    first process waits for its batch, and its memory."""

    def __init__(self) -> None:
        self.start: float | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The first step of an epoch also waits for the loader's start; it is not counted."""
        self.start = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """The batch is there."""
        self.waited = time.perf_counter() - (self.start or 0)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Measure from the end of one step to the end of the next."""
        now = time.perf_counter()
        if self.start is not None:
            took = now - self.start
            speed = len(batch) * trainer.world_size / took
            pl_module.log("train/images_per_second", speed, prog_bar=True, on_epoch=True, on_step=True, batch_size=1)
            pl_module.log("train/data_wait_share", self.waited / took, on_epoch=True, on_step=False, batch_size=1)
        self.start = now

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The most memory that the first process has held: on its GPU, or in RAM."""
        pl_module.log("train/memory_gib", peak_memory(pl_module.device) / 2**30, batch_size=1)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at most: on a GPU, or of RAM, without its loader workers."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

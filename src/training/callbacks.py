"""What watches a run: throughput, one line an epoch, unreadable images, and its checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from torch import Tensor

from src.contracts import Batch
from src.training.averaging import Averaging
from src.training.bad_images import BadImageFile
from src.training.evidence import KeepBatch
from src.training.gradients import GradientNorm
from src.training.saving import LAST, Best, Last, StopAt, Within
from src.training.stopping import StopOnSignal
from src.training.throughput import Throughput


def callbacks(
    run: Path,
    *,
    validates: bool,
    logs: bool,
    ema: float | None = None,
    every: tuple[float | None, int | None] = (None, None),
    max_steps: int = -1,
) -> list[Callback]:
    """The callbacks of a training run that writes to `run`.

    `ema` is the decay of averaged weights, None for none; `every` so many minutes, or steps, a checkpoint is written
    within an epoch (see `Within`); `max_steps` ends training, -1 does not.
    """
    folder = run / "checkpoints"
    watching: list[Callback] = [
        Throughput(),
        EpochLine(),
        BadImageFile(run),
        KeepBatch(run),
        StopOnSignal(folder / LAST),
    ]
    if max_steps >= 0:
        watching.append(StopAt(max_steps))
    if ema is not None:
        watching.append(Averaging(ema))
    if logs:
        watching += [LearningRateMonitor(logging_interval="step"), GradientNorm()]
    if validates:
        watching.append(Best(folder))
    # After Best, whose score it stores for a run that resumes.
    return [*watching, Last(folder), Within(folder, *every)]


class EpochLine(Callback):
    """Prints one line after each epoch, for logs that a progress bar would not suit."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning does not say that an epoch begins which a resumed run is in the middle of."""
        self.start = time.perf_counter()
        self.losses: list[Tensor] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock and mean."""
        self.on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Keep the loss on its device: reading it here would make the device wait."""
        self.losses.append(outputs["loss"].detach())

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Epoch, mean loss, speed, and the validation figures where there are any."""
        loss = trainer.strategy.reduce(torch.stack(self.losses).mean()) if self.losses else None
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        parts += [] if loss is None else [f"loss {float(loss):.3f}"]
        parts += [f"{label} {float(values[key]):.{digits}f}" for key, label, digits in _SHOWN if key in values]
        parts += [f"{key.split('/')[-1]} {100 * float(value):.2f}" for key, value in values.items() if key in _MAPS]
        print(", ".join(parts) + f" ({time.perf_counter() - self.start:.0f} s)", flush=True)


_SHOWN = (("train/images_per_second_epoch", "images/s", 1),)
_MAPS = ("val/easy", "val/medium", "val/hard")

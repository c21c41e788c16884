"""A run that is told to stop: it writes a checkpoint first."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

# What systems send before they end a job: a request to end, and Slurm's and submitit's warnings of a preemption.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopOnSignal(Callback):
    """At SIGTERM, SIGUSR1 or SIGUSR2, whichever process gets it: `last.ckpt`, then an end with SystemExit.

    The processes agree on it after an optimizer step, every `LOOK` of them. Lightning's own handlers are replaced: its
    SIGTERM ends without a checkpoint.
    """

    LOOK = 5

    def __init__(self, last: Path) -> None:
        self.last = last
        self.asked = False
        self.saved = False
        self.step = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning has put its handlers by now, and takes all of them away in the end."""
        self.step = trainer.global_step
        for number in SIGNALS:
            signal.signal(number, self._ask)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an epoch's last step the epoch is finished first, with its validation and its checkpoint."""
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        due = trainer.world_size == 1 or self.step % self.LOOK == 0
        if stepped and due and not trainer.is_last_batch and self._agreed(trainer):
            trainer.save_checkpoint(self.last, weights_only=False)
            self.saved = True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Lightning logs a step after the hooks of its end."""
        if self.saved:
            raise SystemExit

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The epoch before has its checkpoint, which is written after every hook of its end."""
        if self._agreed(trainer):
            raise SystemExit

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Told during the last validation, which no further epoch follows: training is done, and its test is left."""
        if self._agreed(trainer):
            raise SystemExit

    def _agreed(self, trainer: L.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self.asked, all=False)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

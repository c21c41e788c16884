"""When a run writes which checkpoint, and when it ends."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from src.contracts import Batch, InputError

MONITOR = "val/medium"
BEST, LAST = "best.ckpt", "last.ckpt"


class Best(ModelCheckpoint):
    """`best.ckpt`: the epoch with the highest validation mAP."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Path(BEST).stem, monitor=MONITOR, mode="max", enable_version_counter=False)


class Last(ModelCheckpoint):
    """`last.ckpt`: written after every epoch, for resuming."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder, Path(LAST).stem, every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
        )


class StopAt(Callback):
    """Ends training after so many optimizer steps.

    Lightning's own `max_steps` takes every checkpoint for one within an epoch, and a run that resumes skips one.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A run that is resumed may have got there."""
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """All processes count alike."""
        self.on_train_start(trainer, pl_module)


class Within(Callback):
    """`last.ckpt` within an epoch as well: every so many minutes, or optimizer steps, or both; None for not.

    Raises InputError for numbers that are not above 0.
    """

    # Optimizer steps between two looks at the clock, about which all processes must agree.
    LOOK = 10

    def __init__(self, folder: Path, minutes: float | None, steps: int | None) -> None:
        sound = minutes is None or (isinstance(minutes, int | float) and minutes > 0)
        if not sound or not (steps is None or (isinstance(steps, int) and steps > 0)):
            raise InputError(
                f"checkpoint_minutes={minutes} must be a number, checkpoint_steps={steps} a whole one, above 0, or null"
            )
        self.path = folder / LAST
        self.minutes = minutes
        self.steps = steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The clock starts with training, and again with each checkpoint."""
        self.step = trainer.global_step
        self.start = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Save after an optimizer step, since gradients that are gathered over several batches are not kept.

        After an epoch's last batch `Last` does.
        """
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        if not stepped or trainer.is_last_batch:
            return
        if self._due_by_steps() or self._due_by_clock(trainer):
            trainer.save_checkpoint(self.path, weights_only=False)
            self.start = time.monotonic()

    def _due_by_steps(self) -> bool:
        return self.steps is not None and self.step % self.steps == 0

    def _due_by_clock(self, trainer: L.Trainer) -> bool:
        if self.minutes is None or self.step % self.LOOK:
            return False
        return trainer.strategy.broadcast(time.monotonic() - self.start > 60 * self.minutes)


def chosen_checkpoint(run: Path) -> Path:
    """The checkpoint that stands for a run: the best on validation, or the last where nothing validated."""
    best = run / "checkpoints" / BEST
    return best if best.exists() else best.with_name(LAST)


def checkpoints_of(run: Path) -> dict[str, Path]:
    """The checkpoints that a run ends with, by what they are: "best" and "last"."""
    found = {path.stem: run / "checkpoints" / path for path in map(Path, (BEST, LAST))}
    return {name: path for name, path in found.items() if path.exists()}


def best_score(trainer: L.Trainer) -> float | None:
    """The highest validation mAP of a run; None without validation."""
    scores = [callback.best_model_score for callback in trainer.checkpoint_callbacks if isinstance(callback, Best)]
    return float(scores[0]) if scores and scores[0] is not None else None

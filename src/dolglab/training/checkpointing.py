"""Checkpoints on disk: written beside their place, then renamed; of the last one, the one before is kept."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from dolglab.contracts import Batch
from dolglab.errors import UserError
from dolglab.models.checkpoint import read_checkpoint

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

    Raises UserError for numbers that are not above 0.
    """

    # Optimizer steps between two looks at the clock, about which all processes must agree.
    LOOK = 10

    def __init__(self, folder: Path, minutes: float | None, steps: int | None) -> None:
        sound = minutes is None or (isinstance(minutes, int | float) and minutes > 0)
        if not sound or not (steps is None or (isinstance(steps, int) and steps > 0)):
            raise UserError(
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


PREVIOUS = "previous.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's own writes to the machine's temporary folder, which may be small, or copied from at a kill."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path` in one step; a kill in the middle leaves what stood there.

        Raises UserError for a disk that takes no more, on which what stood there stays.
        """
        path = Path(path)
        aside = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            # torch's writer turns the system's errors into its own.
            aside.unlink(missing_ok=True)
            kept = "the one before is kept" if path.exists() else "there is none before it"
            raise UserError(f"{path} cannot be written ({_reason(error)}): {kept}") from error
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        if path.name == LAST and path.exists():
            _keep(path, path.with_name(PREVIOUS))
        os.replace(aside, path)


def last_sound(folder: Path) -> Path | None:
    """The last checkpoint in a run's folder of them, or the one before where that is damaged; None without any."""
    found = [path for path in (folder / LAST, folder / PREVIOUS) if path.exists()]
    if len(found) == 2 and not _sound(found[0]):
        rank_zero_only(print)(f"{found[0]} is damaged: going on from the one before, {found[1].name}")
        return found[1]
    return found[0] if found else None


def _keep(path: Path, before: Path) -> None:
    """Another name for the file, so that a kill at any moment leaves `path`; a move where a disk has no hard links."""
    before.unlink(missing_ok=True)
    try:
        os.link(path, before)
    except OSError:
        os.replace(path, before)


def _sound(path: Path) -> bool:
    """Whether every byte is as it was written: a checkpoint is a zip archive, with a sum of each part."""
    try:
        read_checkpoint(path)
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (UserError, zipfile.BadZipFile, OSError):
        return False


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]

"""What watches a run: throughput, one line an epoch, unreadable images, and its checkpoints."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from src.contracts import BadImage, Batch, InputError

MONITOR = "val/medium"
BEST, LAST = "best.ckpt", "last.ckpt"


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
    watching: list[Callback] = [Throughput(), EpochLine(), BadImageFile(run)]
    if max_steps >= 0:
        watching.append(StopAt(max_steps))
    if ema is not None:
        watching.append(Averaging(ema))
    if logs:
        watching.append(LearningRateMonitor(logging_interval="step"))
    if validates:
        watching.append(Best(folder))
    # After Best, whose score it stores for a run that resumes.
    return [*watching, Last(folder), Within(folder, *every)]


class Averaging(EMAWeightAveraging):
    """An exponential moving average of the weights, which validates, is saved and is tested.

    Raises InputError for a decay outside (0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not isinstance(decay, float) or not 0 < decay < 1:
            raise InputError(f"ema must lie between 0 and 1, such as 0.999, not {decay}")
        super().__init__(decay=decay)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Where the network is going to be: it has not been moved there yet."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Resuming needs both sets of weights; a test is one of the average, which Lightning would replace."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


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


def best_score(trainer: L.Trainer) -> float | None:
    """The highest validation mAP of a run; None without validation."""
    scores = [callback.best_model_score for callback in trainer.checkpoint_callbacks if isinstance(callback, Best)]
    return float(scores[0]) if scores and scores[0] is not None else None


class Throughput(Callback):
    """Logs `train/images_per_second` over all processes, without the time that validation takes."""

    def __init__(self) -> None:
        self.start: float | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The first step of an epoch also waits for the loader's start; it is not counted."""
        self.start = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Measure from the end of one step to the end of the next."""
        now = time.perf_counter()
        if self.start is not None:
            speed = len(batch) * trainer.world_size / (now - self.start)
            pl_module.log("train/images_per_second", speed, prog_bar=True, on_epoch=True, on_step=True, batch_size=1)
        self.start = now


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
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        parts += [f"loss {float(torch.stack(self.losses).mean()):.3f}"] if self.losses else []
        parts += [f"{label} {float(values[key]):.{digits}f}" for key, label, digits in _SHOWN if key in values]
        parts += [f"{key.split('/')[-1]} {100 * float(value):.2f}" for key, value in values.items() if key in _MAPS]
        print(", ".join(parts) + f" ({time.perf_counter() - self.start:.0f} s)", flush=True)


_SHOWN = (("train/images_per_second_epoch", "images/s", 1),)
_MAPS = ("val/easy", "val/medium", "val/hard")


class BadImageFile(Callback):
    """Counts training images that could not be read, and names each once in `bad_images.csv`."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.path = run / "bad_images.csv"
        self.seen: set[str] = set()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Each process has a file of its own; what a resumed run named before is not named again."""
        if trainer.global_rank:
            self.path = self.run / f"bad_images.rank{trainer.global_rank}.csv"
        self.seen = bad_image_names(self.path)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Append what this batch met for the first time."""
        fresh = [image for image in dict.fromkeys(batch.bad) if image.name not in self.seen]
        if fresh:
            self.seen.update(image.name for image in fresh)
            append_bad_images(self.path, fresh)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how many there were."""
        if self.seen:
            print(f"{len(self.seen)} unreadable training images were replaced: {self.path}")


def append_bad_images(path: Path, images: list[BadImage]) -> None:
    """Add rows name,reason to a csv, with its header when it is new."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerows([("name", "reason")] if new else [])
        writer.writerows(images)


def bad_image_names(path: Path) -> set[str]:
    """The names in such a csv; none where there is no file."""
    if not path.exists():
        return set()
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["name"] for row in csv.DictReader(file)}

"""What watches a run: throughput, one line an epoch, unreadable images, and its checkpoints."""

from __future__ import annotations

import csv
import resource
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from dolglab.contracts import BadImage, Batch
from dolglab.errors import UserError
from dolglab.training.checkpointing import LAST, Best, Last, StopAt, Within
from dolglab.training.module import LandmarkModule, NotFiniteError


class Averaging(EMAWeightAveraging):
    """An exponential moving average of the weights, which validates, is saved and is tested.

    Raises UserError for a decay outside (0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not isinstance(decay, float) or not 0 < decay < 1:
            raise UserError(f"ema must lie between 0 and 1, such as 0.999, not {decay}")
        super().__init__(decay=decay)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Where the network is going to be: it has not been moved there yet."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Resuming needs both sets of weights; a test is one of the average, which Lightning would replace."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


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

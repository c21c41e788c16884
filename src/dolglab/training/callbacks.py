"""The callbacks of a training run: throughput, a line per epoch, unreadable images, signals, averaged weights."""

from __future__ import annotations

import csv
import resource
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from dolglab.contracts import BadImage, Batch
from dolglab.errors import UserError
from dolglab.io import atomic_path, write_bytes
from dolglab.processes import main_process
from dolglab.training.module import LandmarkModule, NotFiniteError

# The signals that ask a job to end: Ctrl-C, the usual one, and the preemption warnings of Slurm and submitit.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
AGREE_EVERY = 5
VALIDATION_MAPS = ("val/easy", "val/medium", "val/hard")


class EMA(WeightAveraging):
    """An exponential moving average of the weights, which is validated, saved and tested (see `ema_decay`).

    Raises UserError for a decay outside (0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not isinstance(decay, float) or not 0 < decay < 1:
            raise UserError(f"ema must lie between 0 and 1, such as 0.999, not {decay}")

        def average(averaged: Tensor, current: Tensor, updates: Tensor) -> Tensor:
            kept = ema_decay(decay, updates)
            return kept * averaged + (1 - kept) * current

        super().__init__(avg_fn=average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the average on the device to which the network will be moved."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load both sets of weights when resuming; for a test keep the average, which Lightning would replace."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def ema_decay(decay: float, updates: Tensor) -> Tensor:
    """The weight of the average at the next update, after n updates: min(decay, (1 + n) / (10 + n)).

    This keeps the initial weights from dominating a short run's average: after 100 steps with a constant 0.999, nine
    tenths of the average would be the initial weights.

    >>> ema_decay(0.9, torch.tensor([0, 8, 1000]))
    tensor([0.1000, 0.5000, 0.9000])
    """
    return ((1 + updates) / (10 + updates)).clamp(max=decay)


class BadImageLog(Callback):
    """Counts training images that could not be read, and lists each once in `bad_images.csv` (name, reason).

    Other processes write `bad_images.rankN.csv`; a resumed run lists only images that are not listed yet.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.path = run / "bad_images.csv"
        self.seen: set[str] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the names in this process's file; remove a last row that a kill left incomplete."""
        if trainer.global_rank:
            self.path = self.run / f"bad_images.rank{trainer.global_rank}.csv"
        self.seen = set()
        if self.path.exists():
            data = self.path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                write_bytes(self.path, whole)
            rows = csv.reader(whole.decode(errors="surrogateescape").splitlines(keepends=True))
            self.seen = {row[0] for row in rows if row} - {BadImage._fields[0]}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Append the batch's unreadable images that are not in the file yet."""
        fresh = [image for image in dict.fromkeys(batch.bad) if image.name not in self.seen]
        if fresh:
            self.seen.update(image.name for image in fresh)
            header = [] if self.path.exists() and self.path.stat().st_size else [BadImage._fields]
            with self.path.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
                csv.writer(file).writerows([*header, *fresh])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.seen:
            print(f"{len(self.seen)} unreadable training images were replaced: {self.path}")


class DumpNonFiniteBatch(Callback):
    """Writes a batch whose loss was not finite, and the weights at that step, to `not_finite.rankN.pt`."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.batch: Batch | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.batch = batch

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        batch = self.batch
        if not isinstance(exception, NotFiniteError) or batch is None:
            return
        path = self.run / f"not_finite.rank{trainer.global_rank}.pt"
        # Tensors and lists only, which `torch.load` reads without running code; ids in hexadecimal.
        ids = [f"{int(sample):016x}" for sample in batch.ids]
        plain = {"images": batch.images, "labels": batch.labels, "draws": batch.draws, "ids": ids}
        with atomic_path(path) as aside:
            torch.save({"batch": plain, "state_dict": pl_module.state_dict()}, aside)
        exception.args = (f"{exception}; the batch and the weights are in {path}",)


class GradientNorm(Callback):
    """Logs the gradient norm of the whole network, before clipping, at the logged steps."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        # At this point gradients are averaged over the processes, and unscaled.
        if isinstance(pl_module, LandmarkModule) and is_logged(trainer, trainer.global_step):
            pl_module.log("train/gradient_norm", pl_module.gradient_norm())


def is_logged(trainer: Trainer, step: int) -> bool:
    """Whether Lightning will log an optimizer step, counted from 0."""
    every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
    return every > 0 and (step + 1) % every == 0


class StopOnSignal(Callback):
    """Writes `last` and ends with SystemExit when any process receives SIGTERM, SIGUSR1, SIGUSR2 or Ctrl-C (SIGINT).

    After Ctrl-C it ends with KeyboardInterrupt; a second one ends it at once. Several processes synchronise this every
    `AGREE_EVERY` optimizer steps. Lightning's own handlers are replaced: with them, the run ends without a checkpoint.
    """

    def __init__(self, last: Path) -> None:
        self.last = last
        self.signalled = False
        self.interrupted = False
        self.saved = False
        self.step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's handlers, which are set by now; Lightning removes all handlers at the end."""
        self.step = trainer.global_step
        for number in SIGNALS:
            signal.signal(number, self._note)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint after an optimizer step, but let an epoch's last step validate and save first."""
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        due = trainer.world_size == 1 or self.step % AGREE_EVERY == 0
        if stepped and due and not trainer.is_last_batch and self._agreed(trainer):
            trainer.save_checkpoint(self.last, weights_only=False)
            self.saved = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """End after the previous step is logged, which Lightning does after that step's last hook."""
        if self.saved:
            self._end()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End after the previous epoch's checkpoint is written, which happens after that epoch's last hook."""
        if self._agreed(trainer):
            self._end()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End before the test if the signal came during the last validation."""
        if self._agreed(trainer):
            self._end()

    def _agreed(self, trainer: Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self.signalled, all=False)

    def _end(self) -> NoReturn:
        raise KeyboardInterrupt if self.interrupted else SystemExit

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True
        if number == signal.SIGINT:
            self.interrupted = True
            signal.signal(number, signal.default_int_handler)
            if main_process():
                print("stopping with a checkpoint; Ctrl-C again stops at once", file=sys.stderr, flush=True)


class Throughput(Callback):
    """Logs images per second over all processes (without validation), the share of each step that the first process
    waits for its batch, and its memory."""

    start: float | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out an epoch's first step, which also waits for the loader to start."""
        self.start = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.waited = time.perf_counter() - (self.start or 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Measure from the end of one step to the end of the next."""
        now = time.perf_counter()
        if self.start is not None:
            took = now - self.start
            speed = len(batch) * trainer.world_size / took
            pl_module.log("train/images_per_second", speed, prog_bar=True, on_epoch=True, on_step=True, batch_size=1)
            pl_module.log("train/data_wait_share", self.waited / took, on_epoch=True, on_step=False, batch_size=1)
        self.start = now

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the peak memory of the first process: on its GPU, or its RAM without loader workers."""
        if pl_module.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(pl_module.device)
        else:
            # Bytes on macOS, kilobytes elsewhere.
            unit = 1 if sys.platform == "darwin" else 1024
            peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pl_module.log("train/memory_gib", peak / 2**30, batch_size=1)


class EpochLine(Callback):
    """Prints one line after each epoch, for logs, in which a progress bar is unsuitable."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock, and its list of losses."""
        self.start = time.perf_counter()
        self.losses: list[Tensor] = []
        self.validated = False

    # Also for an epoch that a resumed run continues.
    on_train_start = on_train_epoch_start

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        """Keep the loss on its device: reading it now would stall the device."""
        self.losses.append(outputs["loss"].detach())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record that this epoch was validated: Lightning keeps the figures of earlier epochs."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print epoch, mean loss, speed, and any validation figures."""
        loss = trainer.strategy.reduce(torch.stack(self.losses).mean()) if self.losses else None
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        speed = values.get("train/images_per_second_epoch")
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        parts += [] if loss is None else [f"loss {float(loss):.3f}"]
        parts += [] if speed is None else [f"{float(speed):.1f} images/s"]
        shown = {key: 100 * float(values[key]) for key in VALIDATION_MAPS if self.validated and key in values}
        # A folder, like any set without difficulties, has only one figure, which needs no name.
        named = {key: key.split("/")[-1] + " " if len(shown) > 1 else "" for key in shown}
        parts += [f"validation mAP {', '.join(f'{named[key]}{shown[key]:.2f}' for key in shown)} %"] if shown else []
        print(", ".join(parts) + f" ({time.perf_counter() - self.start:.0f} s)", flush=True)

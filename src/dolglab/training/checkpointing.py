"""Checkpoints of a run: when and how they are written, which one is used, and starting from earlier weights."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from dolglab.contracts import Batch
from dolglab.errors import UserError, pluralize
from dolglab.io import atomic_path, fsync
from dolglab.losses.margin import CurricularFace
from dolglab.losses.pairs import Head
from dolglab.models.checkpoint import RUN_KEY, read_checkpoint, value_at
from dolglab.models.dolg import DescriptorModel
from dolglab.models.released import is_released, read_released
from dolglab.models.released_heads import is_released_head, read_released_head
from dolglab.models.weights import below, check_finite, check_fit, read_file, tensors_of, with_counters

MONITOR = "val/medium"
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
CLOCK_EVERY = 10


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: the epoch with the highest validation mAP."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Path(BEST).stem, monitor=MONITOR, mode="max", enable_version_counter=False)


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt`: written after every epoch, for resuming."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder, Path(LAST).stem, every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
        )


class IntraEpochCheckpoint(Callback):
    """Also writes `last.ckpt` within an epoch: every so many minutes, or optimizer steps, or both; None disables it.

    The processes compare their clocks every `CLOCK_EVERY` optimizer steps.
    Raises UserError for numbers that are not above 0.
    """

    def __init__(self, folder: Path, minutes: float | None, steps: int | None) -> None:
        valid = minutes is None or (isinstance(minutes, int | float) and minutes > 0)
        if not valid or not (steps is None or (isinstance(steps, int) and steps > 0)):
            raise UserError(
                f"checkpoint_minutes={minutes} and checkpoint_steps={steps} (a whole number) must be above 0, or null"
            )
        self.path = folder / LAST
        self.minutes = minutes
        self.steps = steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; each checkpoint restarts it."""
        self.step = trainer.global_step
        self.start = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Save after an optimizer step, because accumulated gradients of several batches are not saved.

        After an epoch's last batch, `LastCheckpoint` saves.
        """
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        if not stepped or trainer.is_last_batch:
            return
        due = self.steps is not None and self.step % self.steps == 0
        if not due and self.minutes is not None and self.step % CLOCK_EVERY == 0:
            due = trainer.strategy.broadcast(time.monotonic() - self.start > 60 * self.minutes)
        if due:
            trainer.save_checkpoint(self.path, weights_only=False)
            self.start = time.monotonic()


class StopAtStep(Callback):
    """Ends training after a number of optimizer steps.

    With Lightning's own `max_steps`, every checkpoint counts as one within an epoch, and a resumed run skips an epoch.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop a resumed run that has already done all its steps."""
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Stop after the last step; all processes count the same."""
        self.on_train_start(trainer, pl_module)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint completely or not at all, and keeps the one before `last.ckpt` as `previous.ckpt`.

    Lightning's own class writes to the machine's temporary folder, which may be too small, and a kill during the copy
    leaves an incomplete file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path` in one step; if it is interrupted, the old file stays.

        Raises UserError if the disk is full; the old file stays then, too.
        """
        path = Path(path)
        try:
            with atomic_path(path) as aside:
                with aside.open("wb") as file:
                    torch.save(checkpoint, file)
                if path.name == LAST and path.exists():
                    fsync(aside)
                    _keep(path, path.with_name(PREVIOUS))
        except (OSError, RuntimeError) as error:
            # torch's writer converts the system's errors into its own.
            kept = "the one before is kept" if path.exists() else "there is none before it"
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise UserError(f"{path} cannot be written ({reason}): {kept}") from error


def _keep(path: Path, before: Path) -> None:
    """Give the file a second name, so that `path` survives a kill at any moment; on a disk without links, move it."""
    before.unlink(missing_ok=True)
    try:
        os.link(path, before)
    except OSError:
        os.replace(path, before)


def checkpoints_of(run: Path) -> dict[str, Path]:
    """The checkpoints of a finished run, by name: "best" and "last"."""
    paths = (run / "checkpoints" / name for name in (BEST, LAST))
    return {path.stem: path for path in paths if path.exists()}


def best_score(trainer: Trainer) -> float | None:
    """The highest validation mAP of a run; None without validation."""
    best = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint)]
    return float(best[0].best_model_score) if best and best[0].best_model_score is not None else None


def resume_line(path: Path, max_epochs: int, max_steps: int = -1) -> str:
    """From where a run resumes: the checkpoint, the epoch (from 1) and optimizer step, and what is left.

    `max_epochs` and `max_steps` limit the run; below 0 they do not.
    """
    checkpoint = read_checkpoint(path)
    step, epochs = checkpoint["global_step"], value_at(checkpoint, "loops.fit_loop.epoch_progress.current")
    done = epochs["processed"]
    within = epochs["started"] > done
    longer = [f"trainer.max_epochs={done + 1} or more"] if 0 <= max_epochs <= done else []
    longer += [f"trainer.max_steps={step + 1} or more"] if 0 <= max_steps <= step else []
    if longer:
        where = f"epoch {done + within}, step {step:,}"
        return f"resuming from {path}: training is done ({where}); to lengthen it: {', '.join(longer)}"
    epoch = f"epoch {done + 1}" + (f" of {max_epochs}" if max_epochs >= 0 else "")
    parts = [f"resuming from {path}: {'within' if within else 'at the start of'} {epoch}, step {step:,}"]
    if max_epochs >= 0:
        after = max_epochs - done - 1
        parts.append(f"{pluralize(after, 'epoch')} left after this one" if after else "this is the last epoch")
    if max_steps >= 0:
        parts.append(f"ends at step {max_steps:,}")
    return "; ".join(parts)


def progress_line(trainer: Trainer) -> str:
    """How far a training has come that did not finish: the epoch (from 1) and the optimizer step."""
    done, limit = trainer.current_epoch, trainer.max_epochs or -1
    if 0 <= limit <= done:
        return f"Training is done (step {trainer.global_step:,}), but the test has not finished."
    epoch = f"epoch {done + 1}" + (f" of {limit}" if limit >= 0 else "")
    return f"Training stopped in {epoch}, after step {trainer.global_step:,}; nothing was tested."


def last_readable(folder: Path) -> Path | None:
    """The last checkpoint in a run's folder, or the one before it if that is damaged; None without any."""
    found = [path for path in (folder / LAST, folder / PREVIOUS) if path.exists()]
    if len(found) == 2 and not _is_readable(found[0]):
        rank_zero_only(print)(f"{found[0]} is damaged: resuming from the one before, {found[1].name}")
        return found[1]
    return found[0] if found else None


def _is_readable(path: Path) -> bool:
    """Whether a checkpoint is undamaged: it is a zip archive with a checksum for each part."""
    try:
        read_checkpoint(path)
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (UserError, zipfile.BadZipFile, OSError):
        return False


def init_from(
    model: DescriptorModel,
    head: Head,
    source: str,
    classes: Sequence[str],
    parts: Sequence[str] | None = None,
    auxiliary: nn.Module | None = None,
) -> None:
    """Load a network, and its head if it fits, from `source`; prints how the head is initialised.

    Args:
        model: receives every tensor; image sizes may differ, architectures may not.
        head: receives the class centres only if `source` has the same landmarks in the same order, or (like the
            released weights) names none but has as many; otherwise it keeps its initialisation.
        source: see `dolglab.models.locate.locate`.
        classes: the landmark of each class.
        parts: load only these parts of the network, such as backbone and pooling, possibly from another kind of
            network; the rest and the head keep their initialisation.
        auxiliary: another module trained on the classes, such as the classifier of a local head; treated like the head.

    Raises UserError like `read_file`, for tensors of another architecture, and for an unknown part.
    """
    stored = read_checkpoint(source) if Path(source).is_dir() else read_file(source)
    tensors = tensors_of(stored, source)
    if is_released(tensors):
        released = read_released(tensors, source)
        network, reason = released.model, ""
        centres = {"weight": released.centres, "mean_cosine": released.mean_cosine}
    elif is_released_head(tensors):
        (_, network), centres, reason = read_released_head(tensors, source), {}, "it has none"
    else:
        check_finite(tensors, source)
        network, centres = below(tensors, "model.") or dict(tensors), below(tensors, "head.")
        reason = _class_mismatch(stored, classes)
    if parts is not None:
        _load_parts(model, network, source, parts)
        return
    network = with_counters(network, model.state_dict())
    check_fit(model.state_dict(), network, source)
    model.load_state_dict(network)
    if auxiliary is not None and not reason:
        _load_fitting(auxiliary, below(tensors, "auxiliary."))
    reason = reason or _load_centres(head, centres)
    taken = f"its head is not used: {reason}" if reason else "and the head's class centres"
    rank_zero_only(print)(f"weights from {source}; {taken}")


def _class_mismatch(stored: Any, classes: Sequence[str]) -> str:
    """Why the class centres of a checkpoint do not belong to `classes`; empty if they do, or if it names no class."""
    named = value_at(stored, f"{RUN_KEY}.classes")
    if not isinstance(named, list):
        return "it does not name its landmarks"
    return "" if named in ([], list(classes)) else "it has other landmarks"


def _load_parts(model: DescriptorModel, tensors: Mapping[str, Tensor], source: str, parts: Sequence[str]) -> None:
    available = dict(model.named_children())
    for name in parts:
        if name not in available:
            raise UserError(f"weights_parts={name}: the network has no such part; its parts are {', '.join(available)}")
        expected = available[name].state_dict()
        part = with_counters(below(tensors, f"{name}."), expected)
        check_fit(expected, part, f"{source} ({name})")
        available[name].load_state_dict(part)
    rank_zero_only(print)(f"weights from {source}: {', '.join(parts)}; the rest keeps its initialisation")


def _load_centres(head: Head, stored: Mapping[str, Tensor]) -> str:
    """Copy class centres, and the running mean if both heads have one; or return why they do not fit."""
    weight = stored.get("weight")
    if head.weight is None:
        return "this one has no class centres"
    if weight is None or weight.shape != head.weight.shape:
        return "its shape differs"
    head.weight.data.copy_(weight)
    if isinstance(head, CurricularFace):
        _load_fitting(head, {key: value for key, value in stored.items() if key == "mean_cosine"})
    return ""


def _load_fitting(module: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Copy stored tensors of the same shape; networks without a local head have none."""
    state = module.state_dict()
    fitting = {key: value for key, value in stored.items() if key in state and state[key].shape == value.shape}
    module.load_state_dict(state | fitting)

"""Checkpoints on disk: written beside their place, then renamed; of the last one, the one before is kept."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.plugins.io import TorchCheckpointIO

from src.contracts import InputError
from src.training.checkpoints import read_checkpoint
from src.training.saving import LAST

PREVIOUS = "previous.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's own writes to the machine's temporary folder, which may be small, or copied from at a kill."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path` in one step; a kill in the middle leaves what stood there.

        Raises InputError for a disk that takes no more, on which what stood there stays.
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
            raise InputError(f"{path} cannot be written ({_reason(error)}): {kept}") from error
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
    except (InputError, zipfile.BadZipFile, OSError):
        return False


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]

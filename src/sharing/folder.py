"""The folder a model is shared as: its tensors as safetensors, and what they are as JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from src.contracts import InputError
from src.models.released import read_released, released_config
from src.training.checkpoints import ABOUT, RUN_KEY, TENSORS, describe_run, load_model, read_checkpoint, selection_of

NOTHING_KNOWN: dict[str, Any] = {"training": None, "validation": {}, "test": {}}


@dataclass(frozen=True)
class Shared:
    """What is shared.

    Attributes:
        tensors: of the network and of the head it was trained with, by a checkpoint's names.
        about: what they are (see `describe_run`).
        source: what a person named.
    """

    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]
    source: str


def from_checkpoint(path: str | Path) -> Shared:
    """What a run's checkpoint holds; nothing of its optimizer goes along. Raises InputError as `load_model`."""
    load_model(path)
    checkpoint = read_checkpoint(path)
    about = {**checkpoint[RUN_KEY], "selected": bool(selection_of(path))}
    return Shared(checkpoint["state_dict"], about, str(path))


def from_released(source: str | Path) -> Shared:
    """What a released checkpoint holds; which landmark is which class is not known. Raises as `read_released`."""
    released = read_released(source)
    tensors = {f"model.{key}": value for key, value in released.model.items()}
    tensors |= {"head.weight": released.centres, "head.mean_cosine": released.mean_cosine}
    config = {"model": released_config(released.backbone, released.aspp)}
    return Shared(tensors, describe_run(config, [], NOTHING_KNOWN), str(source))


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """A folder to write to, which is called `out` once all is written, and is gone where something fails.

    Raises InputError where `out` is there and not empty.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty: name another folder")
    aside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        aside.mkdir(parents=True)
        yield aside
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_model(folder: Path, shared: Shared) -> None:
    """Write tensors and what they are; `load_model` reads the folder."""
    # One tensor may stand in for several names; safetensors wants each its own memory.
    save_file({key: value.detach().clone().contiguous() for key, value in shared.tensors.items()}, folder / TENSORS)
    (folder / ABOUT).write_text(json.dumps(shared.about, indent=1) + "\n", encoding="utf-8")
    # It writes what its owner alone may read.
    (folder / TENSORS).chmod((folder / ABOUT).stat().st_mode)

"""Models for sharing: a folder with the tensors as safetensors and what they are as JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from src.contracts import InputError
from src.models.released import Released, released_config
from src.training.checkpoints import ABOUT, RUN_KEY, TENSORS, describe_run, load_model, read_checkpoint, selection_of

NOTHING_KNOWN: dict[str, Any] = {"training": None, "validation": {}, "test": {}}


def export_checkpoint(path: str | Path, out: str | Path) -> Path:
    """Write a run's checkpoint as a folder; nothing of its optimizer goes along. Raises InputError as `load_model`."""
    load_model(path)
    checkpoint = read_checkpoint(path)
    about = {**checkpoint[RUN_KEY], "selected": bool(selection_of(path))}
    return _write(Path(out), checkpoint["state_dict"], about)


def export_released(released: Released, out: str | Path) -> Path:
    """Write a released checkpoint as a folder; which landmark is which class is not known of it."""
    tensors = {f"model.{key}": value for key, value in released.model.items()}
    tensors |= {"head.weight": released.centres, "head.mean_cosine": released.mean_cosine}
    config = {"model": released_config(released.backbone, released.aspp)}
    return _write(Path(out), tensors, describe_run(config, [], NOTHING_KNOWN))


def _write(out: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty: name another folder")
    aside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        aside.mkdir(parents=True)
        # One tensor may stand in for several names; safetensors wants each its own memory.
        save_file({key: value.detach().clone().contiguous() for key, value in tensors.items()}, aside / TENSORS)
        (aside / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out

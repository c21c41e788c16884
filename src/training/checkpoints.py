"""What a run's checkpoints hold beside the weights, and how a model comes back from one."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.contracts import InputError
from src.models.dolg import DescriptorModel
from src.models.weights import read_file

# The entry of a Lightning checkpoint in which a run describes itself.
RUN_KEY = "dolg_run"
FORMAT = 1
# What an exported folder holds.
TENSORS, ABOUT = "model.safetensors", "model.json"


def describe_run(config: Mapping[str, Any], classes: list[str], data: Mapping[str, Any]) -> dict[str, Any]:
    """What travels in a checkpoint: the resolved configuration, each class's landmark, and digests of the data."""
    return {"format": FORMAT, "config": dict(config), "classes": classes, "data": dict(data)}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, or that of an exported folder, read without running any code in it.

    Raises:
        InputError: no such file, damaged, or not written by this project.
    """
    path = Path(path)
    if (path / ABOUT).is_file():
        return _read_exported(path)
    if not path.is_file():
        raise InputError(f"checkpoint not found: {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged or not a checkpoint ({type(error).__name__})") from error
    run = checkpoint.get(RUN_KEY) if isinstance(checkpoint, dict) else None
    if run is None:
        raise InputError(f"{path} is not a checkpoint of this project: it does not say which model it holds")
    _check_format(run, path)
    return checkpoint


def tensor_file(path: str | Path) -> Path:
    """The file whose digest identifies a checkpoint or an exported folder."""
    return Path(path) / TENSORS if Path(path).is_dir() else Path(path)


def _read_exported(folder: Path) -> dict[str, Any]:
    try:
        run = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / ABOUT} is not JSON: {error}") from error
    if not isinstance(run, dict):
        raise InputError(f"{folder / ABOUT} does not describe a model")
    _check_format(run, folder)
    return {"state_dict": read_file(folder / TENSORS), RUN_KEY: run}


def _check_format(run: Mapping[str, Any], path: Path) -> None:
    if run.get("format") != FORMAT:
        raise InputError(f"{path} has checkpoint format {run.get('format')}, this version reads {FORMAT}")


def load_model(path: str | Path) -> tuple[DescriptorModel, dict[str, Any]]:
    """The trained network of a checkpoint, in eval mode, and the configuration of its run.

    Raises:
        InputError: as `read_checkpoint`, or weights that do not fit the model they come with.
    """
    checkpoint = read_checkpoint(path)
    config = checkpoint[RUN_KEY]["config"]
    model = build_model(config["model"])
    stored = {
        key.removeprefix("model."): value for key, value in checkpoint["state_dict"].items() if key.startswith("model.")
    }
    check_fit(model.state_dict(), stored, path)
    model.load_state_dict(stored)
    return model.eval(), config


def selection_of(path: str | Path) -> dict[str, str]:
    """Digests, by name, of the benchmarks that a checkpoint was selected on; a run's last one was not."""
    if Path(path).name == "last.ckpt":
        return {}
    return dict(read_checkpoint(path)[RUN_KEY]["data"]["validation"])


def check_resumable(path: str | Path, module: nn.Module, run: Mapping[str, Any]) -> None:
    """Raise InputError when a run cannot go on from a checkpoint.

    Args:
        path: its checkpoint.
        module: what would train on; its tensors must be those of the checkpoint.
        run: how it describes itself now (`describe_run`). Its classes must be the same, and so must `optim`, which
            an optimizer takes from the checkpoint whatever is asked for. Its training and validation images must be
            the same, or what was trained on could be tested on, and scores of two sets be compared.
    """
    checkpoint = read_checkpoint(path)
    before = checkpoint[RUN_KEY]
    if list(before["classes"]) != list(run["classes"]):
        raise InputError(
            f"{path} was trained on {len(before['classes'])} landmarks that are not the {len(run['classes'])} of "
            "data.root now: restore the data, or start a new run"
        )
    if any(before["data"][part] != run["data"][part] for part in ("training", "validation")):
        raise InputError(
            f"the training or validation images are not those that {path} was trained with: give the seed and data.* "
            "it was started with and restore its files, or start a new run"
        )
    if before["config"].get("optim") != run["config"].get("optim"):
        raise InputError(f"optim=... cannot change when a run resumes ({path} holds the optimizer): start a new run")
    check_fit(module.state_dict(), checkpoint["state_dict"], path)


def build_model(config: Mapping[str, Any]) -> DescriptorModel:
    """The network a stored configuration describes, without downloading pretrained weights.

    Only this project's models may be built, so that a checkpoint from elsewhere cannot call anything else.
    """
    from hydra.utils import instantiate

    _check_targets(config)
    backbone = {**config["backbone"], "pretrained": False, "weights": None}
    return instantiate({**config, "backbone": backbone})


def check_fit(expected: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise InputError when stored tensors are another architecture's, saying how they differ."""
    missing = sorted(expected.keys() - stored.keys())
    unknown = sorted(stored.keys() - expected.keys())
    shared = sorted(expected.keys() & stored.keys())
    reshaped = [key for key in shared if expected[key].shape != stored[key].shape]
    if missing or unknown or reshaped:
        first = (missing or unknown or reshaped)[0]
        raise InputError(
            f"{path} holds another architecture: {len(missing)} tensors missing, {len(unknown)} unknown, "
            f"{len(reshaped)} of another shape (first: {first})"
        )


def _check_targets(config: Any) -> None:
    if isinstance(config, Mapping):
        target = config.get("_target_")
        if target is not None and not _is_part(str(target)):
            raise InputError(f"the checkpoint wants to build {target}, which is no model of this project")
        for value in config.values():
            _check_targets(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            _check_targets(value)


def _is_part(target: str) -> bool:
    """Whether `target` is a public name that a module directly in src.models defines itself."""
    match = re.fullmatch(r"(src\.models\.[a-z]\w*)\.([A-Za-z]\w*)", target)
    if match is None or importlib.util.find_spec(match[1]) is None:
        return False
    part = getattr(importlib.import_module(match[1]), match[2], None)
    return callable(part) and getattr(part, "__module__", None) == match[1]

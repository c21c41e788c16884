"""What a run's checkpoints hold in addition to the weights, and how a model is loaded from one."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import os
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

import dolglab.models
from dolglab.errors import UserError
from dolglab.models import fusion
from dolglab.models.backbone import without_weights
from dolglab.models.dolg import DescriptorModel
from dolglab.models.weights import below, check_finite, check_fit, read_file, read_pickle, tensors_of, with_counters
from dolglab.renamed import current_target, with_current_targets

# The entry of a Lightning checkpoint in which a run describes itself.
RUN_KEY = "dolg_run"
FORMAT = 1
# The files of an exported folder.
TENSORS, ABOUT = "model.safetensors", "config.json"
# The parts of a run's description of itself, and the largest sizes accepted.
PARTS = {"config": Mapping, "config.model": Mapping, "classes": list, "data": Mapping, "data.validation": Mapping}
MAX_DEPTH, MAX_VALUES = 50, 100_000
# Settings that an optimizer's state depends on: a resumed run cannot change them.
FIXED_BY_OPTIMIZER = (
    "optim",
    "ema",
    "backbone.freeze_until",
    "backbone.freeze_bn",
    "pooling.learnable",
    "trainer.max_steps",
)
# Settings that decide the order of an epoch's samples: a run that resumes within an epoch cannot change them.
FIXED_WITHIN_EPOCH = ("seed", "data.batch_size", "data.sampling", "data.images_per_landmark", "data.packed_url")
# Settings that always differ when a run resumes, and copies of the groups at the root.
NOT_REPORTED = ("name", "output_dir", "resume", "group", "logger", "model.", "data.augmentation")
# An installed package adds the networks of a module by an entry point of this group, such as
# `[project.entry-points."dolglab.models"]` with `mine = "my_package.networks"` in its pyproject.toml.
ENTRY_POINT_GROUP = "dolglab.models"


def describe_run(config: Mapping[str, Any], classes: list[str], data: Mapping[str, Any]) -> dict[str, Any]:
    """A run's description for its checkpoints: resolved configuration, each class's landmark, digests of the data."""
    return {"format": FORMAT, "config": dict(config), "classes": classes, "data": dict(data)}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint or an exported folder, read without running any code in it.

    Raises UserError if it does not exist, is damaged, or was not written by this project.
    """
    path = Path(path)
    if (path / ABOUT).is_file():
        try:
            run = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path / ABOUT} is not JSON: {error}") from error
        return {"state_dict": read_file(path / TENSORS), RUN_KEY: _checked_run(run, path)}
    if not path.is_file():
        raise UserError(f"checkpoint not found: {path}")
    checkpoint = read_pickle(path, path, mmap=True)
    run = checkpoint.get(RUN_KEY) if isinstance(checkpoint, dict) else None
    if run is None:
        raise UserError(f"{path} is not a checkpoint of this project: it does not say which model it holds")
    return {**checkpoint, RUN_KEY: _checked_run(run, path)}


def read_run(path: str | Path) -> dict[str, Any]:
    """How the run behind a checkpoint describes itself (see `describe_run`). Raises UserError as `read_checkpoint`."""
    return read_checkpoint(path)[RUN_KEY]


def tensor_file(path: str | Path) -> Path:
    """The file whose digest identifies a checkpoint or an exported folder."""
    return Path(path) / TENSORS if Path(path).is_dir() else Path(path)


def load_model(path: str | Path) -> tuple[DescriptorModel, dict[str, Any]]:
    """The trained network of a checkpoint, in eval mode, and the configuration of its run.

    Its `side` is the size to which images were shrunk for validation, if they were. Raises UserError like
    `read_checkpoint`, and for weights that do not fit their model, or are not finite.
    """
    checkpoint = read_checkpoint(path)
    config = checkpoint[RUN_KEY]["config"]
    model = build_model(config["model"])
    expected = model.state_dict()
    stored = with_counters(below(tensors_of(checkpoint.get("state_dict"), path), "model."), expected)
    check_fit(expected, stored, path)
    check_finite(stored, path)
    model.load_state_dict(stored)
    if (side := value_at(config, "data.max_side")) is not None:
        if not isinstance(side, int) or side < 1:
            raise UserError(f"{path} does not describe itself: its data.max_side is {str(side)[:80]}")
        model.side = side
    return model.eval(), config


def trained_network(path: str | Path) -> DescriptorModel:
    """The trained network of a checkpoint, without its configuration. Raises UserError like `load_model`."""
    return load_model(path)[0]


def build_model(config: Mapping[str, Any]) -> DescriptorModel:
    """The network that a stored configuration describes, without downloading pretrained weights.

    Only registered networks are built (see `resolve_target`), so that an untrusted checkpoint cannot call anything
    else. Raises UserError for other targets, and for arguments that the network does not accept.
    """
    from hydra.utils import instantiate

    try:
        model = instantiate(safe_config(config))
    except UserError:
        raise
    except Exception as error:
        # An untrusted configuration may hold anything, so Hydra and constructors may raise anything.
        why = " ".join(str(error.__cause__ or error).split())[:300]
        raise UserError(f"the checkpoint's network cannot be built: {why}") from error
    if not isinstance(model, DescriptorModel):
        raise UserError(f"the checkpoint does not describe a descriptor network, but {type(model).__name__}")
    return model


def safe_config(config: Any) -> Any:
    """A stored configuration with the current names of its targets, which builds only networks and downloads nothing.

    Raises UserError for other targets, and for interpolations, which Hydra could resolve to anything.
    """
    if isinstance(config, Mapping):
        inside = {safe_config(key): safe_config(value) for key, value in config.items()}
        if "_target_" not in inside:
            return inside
        network = resolve_target(str(inside["_target_"]))
        inside["_target_"] = f"{network.__module__}.{network.__qualname__}"
        parameters = inspect.signature(network).parameters
        if "pretrained" in parameters:
            inside |= {key: value for key, value in without_weights(inside).items() if key in parameters}
        return inside
    if isinstance(config, list | tuple):
        return [safe_config(value) for value in config]
    if isinstance(config, str) and "${" in config:
        raise UserError(f"the checkpoint's configuration is not resolved: {config}")
    return config


def resolve_target(target: str) -> Callable[..., Any]:
    """The class or function that a target names, in whichever module of the package it is now.

    Only the last part of the name counts, so that checkpoints stay valid when a class moves to another file; renamed
    classes are listed in `dolglab.renamed`. The name itself is never imported.

    >>> resolve_target("src.models.pooling.GeM").__name__
    'GeM'

    Raises UserError if no network has this name.
    """
    found = registered_networks().get(current_target(target).rpartition(".")[2])
    if found is None:
        raise UserError(
            f"{target} is not a network of dolglab.models: was it renamed (src/dolglab/renamed.py), or does it belong "
            "to a package that is not installed here?"
        )
    return found


@functools.cache
def registered_networks() -> Mapping[str, Callable[..., Any]]:
    """Every nn.Module of `dolglab.models`, every fusion, and the networks of entry points, by class name.

    Raises UserError if two have the same name.
    """
    own = [importlib.import_module(f"dolglab.models.{m.name}") for m in pkgutil.iter_modules(dolglab.models.__path__)]
    found: dict[str, Callable[..., Any]] = {}
    for module in [*own, *(entry.load() for entry in entry_points(group=ENTRY_POINT_GROUP))]:
        for name, value in vars(module).items():
            if _is_network(value, module) and found.setdefault(name, value) is not value:
                raise UserError(f"{module.__name__}.{name} and {found[name].__module__}.{name} have the same name")
    return found


def _is_network(value: Any, module: ModuleType) -> bool:
    if getattr(value, "__module__", None) != module.__name__:
        return False
    if inspect.isclass(value):
        return issubclass(value, nn.Module)
    return module is fusion and inspect.isfunction(value) and not value.__name__.startswith("_")


def check_loadable(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Raise UserError if `load_model` could not restore a network that is about to be trained.

    Args:
        model: the network.
        config: its description in checkpoints: `config["model"]` of `describe_run`.
    """
    # Random numbers drawn after this check are the same as without it.
    with torch.random.fork_rng(devices=[]):
        rebuilt = build_model(config)
    check_fit(rebuilt.state_dict(), model.state_dict(), "a checkpoint of this run")


def selection_of(path: str | Path) -> dict[str, str]:
    """Digests, by name, of the benchmarks that a checkpoint was selected on; none for a run's last checkpoint."""
    run = read_run(path)
    return {} if Path(path).name == "last.ckpt" or not run.get("selected", True) else dict(run["data"]["validation"])


def method_of(config: Mapping[str, Any]) -> str:
    """The name of a run's method in results, from its configuration: the run's name, unless it has another; or empty.

    >>> method_of({"method": "trained DOLG", "name": "demo/dolg"}), method_of({"method": None, "name": "mine"})
    ('trained DOLG', 'mine')
    """
    return str(config.get("method") or config.get("name") or "")


def trained_on(run: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's training data: images, landmarks, and digests of the list and of the class map."""
    # Landmarks are named after folders, whose names may contain any bytes.
    classes = hashlib.blake2b(os.fsencode("\n".join(run["classes"])), digest_size=8).hexdigest()
    data = run["data"]
    return {
        "images": data.get("images"),
        "landmarks": len(run["classes"]),
        "list": data.get("training"),
        "classes": classes,
    }


def check_resumable(path: str | Path, module: nn.Module, run: Mapping[str, Any]) -> None:
    """Raise UserError if a run cannot resume from a checkpoint.

    Args:
        path: the checkpoint.
        module: the module that would continue; its tensors must match the checkpoint's.
        run: the run's current description (`describe_run`). These must be the same as before: the classes; `optim`,
            because the optimizer is restored from the checkpoint; the training and validation images, because otherwise
            training images could become validation images, and scores of different sets would be compared; and
            whatever else decides which parameters the optimizer holds (`FIXED_BY_OPTIMIZER`).
    """
    checkpoint = read_checkpoint(path)
    before = checkpoint[RUN_KEY]
    if list(before["classes"]) != list(run["classes"]):
        raise UserError(
            f"{path} was trained on {len(before['classes'])} landmarks that are not the {len(run['classes'])} of "
            "data.root now: restore the data, or start a new run"
        )
    if any(before["data"].get(part) != run["data"][part] for part in ("training", "validation")):
        raise UserError(
            f"the training or validation images are not those that {path} was trained with: give the seed and data.* "
            "it was started with and restore its files, or start a new run"
        )
    fixed = dict.fromkeys(FIXED_BY_OPTIMIZER, "holds the optimizer")
    epochs = value_at(checkpoint, "loops.fit_loop.epoch_progress.current") or {}
    if epochs.get("processed") != epochs.get("started"):
        fixed |= dict.fromkeys(FIXED_WITHIN_EPOCH, "was written in the middle of an epoch")
    for key, why in fixed.items():
        if value_at(before["config"], key) != value_at(run["config"], key):
            raise UserError(f"{key}=... cannot change when a run resumes ({path} {why}): start a new run")
    check_fit(module.state_dict(), tensors_of(checkpoint.get("state_dict"), path), path)


def changes(path: str | Path, run: Mapping[str, Any]) -> list[str]:
    """The settings that change when a run resumes from a checkpoint, such as "seed: 0 -> 1".

    Each is listed once: of copies, such as `strategy` and `trainer.strategy`, that with the shortest key; of a section
    with another `_target_`, the target, and only those keys that both have.
    """
    before, now = (_flattened(about["config"]) for about in (read_run(path), run))
    changed: dict[str, tuple[Any, Any]] = {}
    for key in (key for key in {**before, **now} if not key.startswith(NOT_REPORTED)):
        section = key.removesuffix("._target_")
        old, new = (config.get(section, config.get(f"{section}._target_")) for config in (before, now))
        if old != new:
            changed[section] = old, new

    def is_repeated(key: str) -> bool:
        names = key.split(".")
        splits = [(".".join(names[:depth]), ".".join(names[depth:])) for depth in range(1, len(names))]
        of_section = any(section in changed for section, _ in splits) and not (key in before and key in now)
        return of_section or any(changed.get(end) == changed[key] for _, end in splits)

    return [f"{key}: {old} -> {new}" for key, (old, new) in changed.items() if not is_repeated(key)]


def _checked_run(run: Any, path: Path) -> dict[str, Any]:
    """A run's description of itself, with current names. Raises UserError for another or an incomplete format."""
    if not isinstance(run, Mapping) or run.get("format") != FORMAT:
        found = run.get("format") if isinstance(run, Mapping) else None
        raise UserError(f"{path} has checkpoint format {found}, this version reads {FORMAT}")
    missing = [key for key, kind in PARTS.items() if not isinstance(value_at(run, key), kind)]
    if missing:
        raise UserError(f"{path} does not describe itself: {', '.join(missing)} is missing or invalid")
    if not all(isinstance(landmark, str) for landmark in run["classes"]):
        raise UserError(f"{path} does not describe itself: its classes are not names")
    _check_plain([run["config"], run["data"]], path)
    if not isinstance(run["config"].get("data") or {}, Mapping):
        raise UserError(f"{path} does not describe itself: config.data is invalid")
    return with_current_targets(run)


def _check_plain(config: Any, path: Path) -> None:
    """Raise UserError for an invalid configuration: containers that are too large or nested too deeply (for example in
    themselves), keys that are not strings, values that YAML does not have."""
    pending, seen = [(config, 0)], 0
    while pending:
        part, depth = pending.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_VALUES:
            raise UserError(f"{path} does not describe itself: its configuration is too large or nested too deeply")
        if isinstance(part, Mapping):
            if not all(isinstance(key, str) for key in part):
                raise UserError(f"{path} does not describe itself: keys of its configuration are not names")
            pending += [(value, depth + 1) for value in part.values()]
        elif isinstance(part, list | tuple):
            pending += [(value, depth + 1) for value in part]
        elif not isinstance(part, str | int | float | None):
            raise UserError(f"{path} does not describe itself: its configuration contains a {type(part).__name__}")


def value_at(config: Any, key: str) -> Any:
    """The value at a dotted key, or None."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        inside = isinstance(value, Mapping) and value
        found |= _flattened(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return found

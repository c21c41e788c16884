"""Files of tensors, wherever they lie; read without running any code in them."""

from __future__ import annotations

import importlib.resources
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dolglab.errors import UserError, truncate_list


def locate(source: str | Path) -> Path:
    """The file behind a path, `package:PACKAGE/FILE` inside an installed package, or `hf://OWNER/NAME/FILE`.

    A file of the Hugging Face hub is downloaded once, into the hub's own cache.
    Raises UserError when there is no such file, package or repository.
    """
    text = str(source)
    if text.startswith("package:"):
        path = _in_package(text.removeprefix("package:"))
    elif text.startswith("hf://"):
        path = _from_hub(text.removeprefix("hf://"))
    else:
        path = Path(source)
    if not path.is_file():
        raise UserError(f"weights not found: {source}")
    return path


def read_file(source: str | Path) -> Any:
    """What a file holds: tensors by name of a `.safetensors`, else what torch saved, plain values and tensors only.

    Raises UserError when the file is not there, is damaged, or holds code.
    """
    path = locate(source)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():
            # Of pickle protocols that torch does not write itself.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{source} is refused: it is damaged or asks for code, and only tensors and plain values are read"
        ) from error
    except Exception as error:
        raise UserError(f"{source} is not a file of tensors ({type(error).__name__})") from error


def tensors_of(stored: Any, source: object) -> dict[str, Tensor]:
    """The tensors by name in what a file holds, also below `model_state`, `state_dict` or `model`.

    Prefixes that data parallelism and compilation leave in names are taken off. Raises UserError without tensors.
    """
    for key in ("model_state", "state_dict", "model"):
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    named = stored if isinstance(stored, Mapping) else {}
    tensors = {
        str(key).removeprefix("module.").removeprefix("_orig_mod."): value
        for key, value in named.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise UserError(f"{source} holds no tensors by name")
    return tensors


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it.

    >>> below({"model.fc.bias": torch.zeros(1), "head.weight": torch.zeros(1)}, "model.")
    {'fc.bias': tensor([0.])}
    """
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def check_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise UserError naming the tensors that hold NaN or infinity."""
    wrong = [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise UserError(f"{source} holds values that are not finite, in {truncate_list(wrong, 8)}")


def _in_package(name: str) -> Path:
    package, _, file = name.partition("/")
    try:
        return Path(str(importlib.resources.files(package) / file))
    except (ModuleNotFoundError, TypeError, ValueError):
        raise UserError(f"the package {package} with the weights is not installed") from None


def _from_hub(name: str) -> Path:
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise UserError(f"hf://{name} is not hf://OWNER/NAME/FILE")
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError:
        raise UserError("hf:// needs the hub: pip install 'dolglab[hub]'") from None
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"hf://{name} could not be had ({type(error).__name__}: {reason})") from error

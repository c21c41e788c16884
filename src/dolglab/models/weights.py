"""Read files of tensors without running any code in them, and compare them with the expected tensors."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dolglab.errors import UserError, truncate_list
from dolglab.models.locate import locate

# Keys below which training code stores tensors; the first one present is used. Averaged weights (timm's
# `state_dict_ema` and `model_ema`, the teacher of self-distillation) come before those of the last step.
WRAPPERS = ("state_dict_ema", "model_ema", "model_state", "state_dict", "model", "teacher", "student")
# The largest nesting depth of these keys.
MAX_WRAPPERS = 4
# Prefixes that data parallelism and compilation add to names, in any order.
PARALLEL_PREFIXES = re.compile(r"^(?:(?:module|_orig_mod)\.)+")
# The number of batches a batch norm has seen: PyTorch before 0.4.1 did not count, and no result depends on it.
COUNTER = "num_batches_tracked"


class _Omitted:
    """A placeholder for an object that is not a tensor and not needed: accepts any arguments and keeps none."""

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# Scores and options that training code saves with the tensors. They are replaced by empty objects, so that numpy's own
# unpickling, which trusts the sizes that a file states, does not run.
OMITTED = (
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    # The values of an empty array.
    "builtins.bytes",
    "argparse.Namespace",
)


def read_file(source: str | Path) -> Any:
    """The content of a file: tensors by name from a `.safetensors`, else what torch saved (see `read_pickle`).

    Raises UserError if the file does not exist, is damaged, or contains code.
    """
    path = locate(source)
    if path.suffix != ".safetensors":
        return read_pickle(path, source)
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        raise UserError(f"{source} is not a file of tensors ({type(error).__name__})") from error


def read_pickle(path: Path, source: object, mmap: bool = False) -> Any:
    """What `torch.save` wrote: tensors and plain values only. NumPy arrays, NumPy numbers and options are replaced by
    empty objects. `mmap` reads tensors when they are first used.

    Raises UserError, which calls the file `source`, if it is damaged or contains code.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Omitted, name) for name in OMITTED]):
            # About pickle protocols that torch itself does not write.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{source} is refused: it is damaged or contains code; only tensors and plain values are read"
        ) from error
    except Exception as error:
        # A file can make torch build any part of a tensor, so any of torch's errors may occur.
        raise UserError(f"{source} is damaged, or is not a file of tensors ({type(error).__name__})") from error


def tensors_of(stored: Any, source: object) -> dict[str, Tensor]:
    """The tensors by name in a file's content, also below the keys of `WRAPPERS`, which may be nested.

    Prefixes added by data parallelism and compilation are removed. Raises UserError if there are no tensors.
    """
    for _ in range(MAX_WRAPPERS):
        named = stored if isinstance(stored, Mapping) else {}
        stored = next((named[key] for key in WRAPPERS if isinstance(named.get(key), Mapping)), named)
    # Nested tensors have no shape.
    tensors = {
        PARALLEL_PREFIXES.sub("", str(key)): value
        for key, value in stored.items()
        if isinstance(value, Tensor) and not value.is_nested
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


def with_counters(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors, completed by the expected counters of batch norms, which old files lack."""
    return {key: value for key, value in expected.items() if key.endswith(COUNTER)} | dict(tensors)


def check_fit(expected: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise UserError if stored tensors belong to another architecture; the message says how they differ."""
    shared = expected.keys() & stored.keys()
    differing = {
        "missing": expected.keys() - stored.keys(),
        "unknown": stored.keys() - expected.keys(),
        "of another shape": {key for key in shared if expected[key].shape != stored[key].shape},
        "of another type": {
            key for key in shared if expected[key].is_floating_point() > stored[key].is_floating_point()
        },
    }
    if any(differing.values()):
        parts = [f"{len(keys)} {what} ({truncate_list(sorted(keys), 8)})" for what, keys in differing.items() if keys]
        raise UserError(f"{path} holds another architecture's tensors: {'; '.join(parts)}")


def check_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise UserError naming the tensors that hold NaN or infinity, or that are not plain: complex, quantised, sparse,
    or with fewer values than their shape says."""
    odd = [key for key, value in tensors.items() if not _is_plain(value)]
    if odd:
        raise UserError(f"{source} holds tensors that are not plain real numbers: {truncate_list(odd, 8)}")
    wrong = [key for key, value in tensors.items() if not value.float().isfinite().all()]
    if wrong:
        raise UserError(f"{source} holds values that are not finite, in {truncate_list(wrong, 8)}")


def _is_plain(value: Tensor) -> bool:
    """Whether a tensor has all of its values in memory, as real numbers."""
    if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
        return False
    # A single value expanded to a large shape would need the memory of that shape.
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()

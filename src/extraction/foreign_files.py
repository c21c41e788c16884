"""Descriptors as others keep them: numpy, MATLAB and safetensors files, read without running any code in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from src.contracts import InputError

# The tables of a file whose gallery and queries are apart.
APART = ("gallery", "queries")

# Whether parts with these numbers of rows may be what is meant.
Fits = Callable[[tuple[int, ...]], bool]


@dataclass(frozen=True)
class Table:
    """Descriptors in a file's own order, one a row: one part, or the gallery's and the queries'.

    Parts are (rows, D) of any kind of real number, mapped into memory where the format allows it.
    """

    parts: tuple[NDArray[Any], ...]
    names: list[str] | None = None

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def dim(self) -> int:
        """D."""
        return self.parts[0].shape[1]

    def rows(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of some rows."""
        if len(self.parts) == 1:
            return self.parts[0][rows]
        first, second = self.parts
        behind = rows >= len(first)
        taken = np.empty((len(rows), self.dim), np.result_type(first, second))
        taken[~behind] = first[rows[~behind]]
        taken[behind] = second[rows[behind] - len(first)]
        return taken


def read_table(path: Path, fits: Fits) -> Table:
    """The descriptors in a file.

    Args:
        path: `.npy`, (images, D); `.mat` of MATLAB v5 with X, (D, gallery), and Q, (D, queries); or `.safetensors` with
            `descriptors`, (images, D), or `gallery` and `queries`, and where given their `names`, a JSON list in the
            metadata.
        fits: whether parts with these numbers of rows may be meant. A `.mat` whose columns do not fit, and whose rows
            do, is taken as transposed.

    Raises:
        InputError: no such file, another format, no such tables in it, tables that are no numbers or whose dimensions
            differ.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: descriptors are read from a .npy, .mat or .safetensors file")
    if not path.exists():
        raise InputError(f"descriptors not found: {path}")
    match path.suffix.lower():
        case ".npy":
            table = Table((_checked(_read_npy(path), path, "the array"),))
        case ".mat":
            table = _read_mat(path, fits)
        case ".safetensors":
            table = _read_safetensors(path)
        case _:
            raise InputError(f"{path}: descriptors are read from .npy, .mat and .safetensors, not from {path.name}")
    dims = [part.shape[1] for part in table.parts]
    if len(set(dims)) > 1:
        raise InputError(f"{path}: the gallery's descriptors have {dims[0]} dimensions, the queries' {dims[1]}")
    return table


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        if "Python objects" in str(error):
            raise InputError(f"{path} holds pickled objects, which are not read: save a plain float32 array") from error
        raise InputError(f"{path} is not a .npy file that can be read ({_line(error)})") from error


def _read_mat(path: Path, fits: Fits) -> Table:
    from scipy.io import loadmat

    try:
        stored: Mapping[str, Any] = loadmat(path, variable_names=["X", "Q"])
    except NotImplementedError as error:
        raise InputError(f"{path} is of MATLAB v7.3 (HDF5), which is not read: save it as v7, or as .npy") from error
    except Exception as error:
        raise InputError(f"{path} is not a MATLAB file that can be read ({_line(error)})") from error
    if "X" not in stored:
        raise InputError(f"{path} lacks X, the gallery's descriptors as columns (and Q, those of the queries)")
    parts = tuple(_checked(stored[key], path, key) for key in ("X", "Q") if key in stored)
    columns = tuple(part.T for part in parts)
    sound = [given for given in (columns, parts) if len({part.shape[1] for part in given}) == 1] or [columns]
    return Table(next((given for given in sound if fits(tuple(map(len, given)))), sound[0]))


def _read_safetensors(path: Path) -> Table:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            keys, about = set(file.keys()), file.metadata() or {}
            layout = keys & {"descriptors", *APART}
            if layout not in ({"descriptors"}, set(APART)):
                found = ", ".join(sorted(keys)[:8]) or "nothing"
                raise InputError(f"{path} must hold either descriptors, or gallery and queries; it holds {found}")
            wanted = APART if "gallery" in layout else ("descriptors",)
            tensors = {key: file.get_tensor(key) for key in wanted}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a safetensors file that can be read ({_line(error)})") from error
    parts = tuple(_checked(_array(tensor), path, key) for key, tensor in tensors.items())
    return Table(parts, _names(about["names"], path) if "names" in about else None)


def _array(tensor: Tensor) -> NDArray[Any]:
    """Numpy has no bfloat16, and none of the smaller kinds."""
    return (tensor.float() if tensor.is_floating_point() and tensor.element_size() <= 2 else tensor).numpy()


def _names(text: str, path: Path) -> list[str]:
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: the names in its metadata are not a JSON list of names")
    return names


def _checked(part: Any, path: Path, what: str) -> NDArray[Any]:
    """Raise InputError for what is no table of real numbers."""
    if not isinstance(part, np.ndarray) or part.ndim != 2 or part.dtype.kind not in "fiu" or not part.size:
        shape = f"{part.dtype} of shape {part.shape}" if isinstance(part, np.ndarray) else type(part).__name__
        raise InputError(f"{path}: {what} is {shape}, where a table of numbers, images by dimensions, is wanted")
    return part


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__

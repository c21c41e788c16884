"""Tables of descriptors in files of other projects: .npy, .mat, .safetensors, hloc's .h5 and .parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import IntArray
from dolglab.errors import UserError, truncate_list

SUFFIXES = (".npy", ".mat", ".safetensors", ".h5", ".parquet")
# The name of hloc's data set in each image's group.
HLOC_KEY = "global_descriptor"

# Whether parts with these numbers of rows fit the benchmark.
Fits = Callable[[tuple[int, ...]], bool]


@dataclass(frozen=True)
class Table:
    """Descriptors in the order of a file, one per row: in one part, or separately for gallery and queries.

    Parts are (rows, D) of any real number type, memory-mapped if the format allows it; `names` are the names of rows in
    the file itself.
    """

    parts: tuple[NDArray[Any], ...]
    names: list[str] | None = None

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def dim(self) -> int:
        return self.parts[0].shape[1]

    def rows(self, rows: IntArray) -> NDArray[Any]:
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
        path: `.npy`, (images, D); `.mat` of MATLAB v5 with X, (D, gallery), and Q, (D, queries); `.safetensors` with
            `descriptors`, (images, D), or `gallery` and `queries`, and optionally `names`, a JSON list in the metadata;
            `.h5` of hloc, with a `global_descriptor` in a group per image; or `.parquet` with a column `descriptor` of
            lists, and optionally a column `name`.
        fits: whether parts with these numbers of rows fit the benchmark. A `.mat` whose rows fit but whose columns do
            not is transposed.

    Raises:
        UserError: if the file does not exist, has another format or lacks these tables, and for tables that are not
            numbers or have different dimensions.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: descriptors are read from {', '.join(SUFFIXES)} files")
    if not path.exists():
        raise UserError(f"descriptors not found: {path}")
    match path.suffix.lower():
        case ".npy":
            table = Table((_checked(_read_npy(path), path, "the array"),))
        case ".mat":
            table = _read_mat(path, fits)
        case ".safetensors":
            table = _read_safetensors(path)
        case ".h5":
            table = _read_hloc(path)
        case ".parquet":
            table = _read_parquet(path)
        case _:
            raise UserError(f"{path}: descriptors are read from {', '.join(SUFFIXES)} files, not from {path.name}")
    dims = [part.shape[1] for part in table.parts]
    if len(set(dims)) > 1:
        raise UserError(f"{path}: the gallery's descriptors have {dims[0]} dimensions, the queries' {dims[1]}")
    return table


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        if "Python objects" in str(error):
            raise UserError(f"{path} holds pickled objects, which are not read: save a plain float32 array") from error
        raise UserError(f"{path} is not a .npy file that can be read ({_line(error)})") from error


def _read_mat(path: Path, fits: Fits) -> Table:
    from scipy.io import loadmat

    try:
        stored: Mapping[str, Any] = loadmat(path, variable_names=["X", "Q"])
    except NotImplementedError as error:
        raise UserError(
            f"{path} has the format MATLAB v7.3 (HDF5), which is not supported: save it as v7, or as .npy"
        ) from error
    except Exception as error:
        raise UserError(f"{path} is not a MATLAB file that can be read ({_line(error)})") from error
    if "X" not in stored:
        raise UserError(f"{path} lacks X, the gallery's descriptors as columns (and Q, those of the queries)")
    parts = tuple(_checked(stored[key], path, key) for key in ("X", "Q") if key in stored)
    columns = tuple(part.T for part in parts)
    sound = [given for given in (columns, parts) if len({part.shape[1] for part in given}) == 1] or [columns]
    return Table(next((given for given in sound if fits(tuple(map(len, given)))), sound[0]))


def _read_safetensors(path: Path) -> Table:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            keys, about = sorted(file.keys()), file.metadata() or {}
            layout = [key for key in keys if key in ("descriptors", "gallery", "queries")]
            if layout not in (["descriptors"], ["gallery", "queries"]):
                found = ", ".join(keys[:8]) or "nothing"
                raise UserError(f"{path} must hold either descriptors, or gallery and queries; it holds {found}")
            tensors = [file.get_tensor(key) for key in layout]
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file that can be read ({_line(error)})") from error
    # numpy has neither bfloat16 nor the smaller types.
    arrays = [(x.float() if x.is_floating_point() and x.element_size() <= 2 else x).numpy() for x in tensors]
    parts = tuple(_checked(array, path, key) for array, key in zip(arrays, layout, strict=True))
    if "names" not in about:
        return Table(parts)
    try:
        names = json.loads(about["names"])
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: the names in its metadata are not a JSON list of names")
    return Table(parts, names)


def _read_hloc(path: Path) -> Table:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError(f"{path} needs h5py: pip install 'dolglab[descriptors]'") from None
    found: dict[str, NDArray[Any]] = {}

    def keep(name: str, item: Any) -> None:
        image, _, key = name.rpartition("/")
        if key == HLOC_KEY and isinstance(item, h5py.Dataset):
            found[image] = item[()].ravel()

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except Exception as error:
        raise UserError(f"{path} is not an HDF5 file that can be read ({_line(error)})") from error
    lengths = Counter(len(row) for row in found.values())
    if len(lengths) != 1:
        what = f"descriptors of lengths {truncate_list(list(map(str, lengths)))}" if lengths else "no image's group"
        raise UserError(
            f"{path}: hloc's files have a group per image with {HLOC_KEY}, all of one length; this file has {what}"
        )
    return Table((_checked(np.stack(list(found.values())), path, HLOC_KEY),), list(found))


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow.compute
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError(f"{path} needs pyarrow: pip install 'dolglab[descriptors]'") from None
    # pyarrow defines its functions at import time.
    compute: Any = pyarrow.compute
    try:
        columns = parquet.read_schema(path).names
        if "descriptor" not in columns:
            raise UserError(f"{path} must hold a column descriptor; it holds {truncate_list(columns, 8) or 'nothing'}")
        table = parquet.read_table(path, columns=[name for name in ("name", "descriptor") if name in columns])
        lists = table["descriptor"]
        lengths = compute.unique(compute.list_value_length(lists)).to_pylist()
        if len(lengths) != 1 or not lengths[0]:
            raise UserError(
                f"{path}: its descriptors are of lengths {truncate_list(list(map(str, lengths)))}, not of one"
            )
        values = compute.list_flatten(lists).to_numpy().reshape(len(table), -1)
        names = table["name"].to_pylist() if "name" in columns else None
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} is not a Parquet file of descriptors ({_line(error)})") from error
    if names is not None and not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: its column name holds other things than names")
    return Table((_checked(values, path, "descriptor"),), names)


def _checked(part: Any, path: Path, what: str) -> NDArray[Any]:
    """A part, if it is a table of real numbers. Raises UserError otherwise."""
    if not isinstance(part, np.ndarray) or part.ndim != 2 or part.dtype.kind not in "fiu" or not part.size:
        shape = f"{part.dtype} of shape {part.shape}" if isinstance(part, np.ndarray) else type(part).__name__
        raise UserError(f"{path}: {what} is {shape}, but must be a table of numbers, images by dimensions")
    return part


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__

"""Read descriptors from files of other projects, in the order of a benchmark's images, to evaluate them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, FloatArray, IntArray
from dolglab.data.sources import IMAGE_SUFFIXES
from dolglab.errors import UserError, truncate_list
from dolglab.io import write_bytes
from dolglab.retrieval.large_arrays import assemble, row_chunks

SUFFIXES = (".npy", ".mat", ".safetensors", ".h5", ".parquet")
# The name of hloc's data set in each image's group.
HLOC_KEY = "global_descriptor"
# Descriptors up to this size in bytes are loaded into memory; and the bytes that are processed at a time.
IN_MEMORY, CHUNK_BYTES = 2**30, 2**23
# Vectors whose length is this close to 1 are not normalised again: float32 is hardly more precise.
EXACT = 1e-5
# Vectors whose length is this close to 1 were normalised before rounding, for example to half precision.
ROUNDED = 2e-3

# Whether parts with these numbers of rows fit the benchmark.
Fits = Callable[[tuple[int, ...]], bool]


@dataclass(frozen=True)
class AlignedDescriptors:
    """Descriptors read from a file.

    `descriptors` are (images, D) float32, L2-normalised, in the order of the benchmark's images: gallery, distractors,
    queries. If they exceed 1 GiB, they are memory-mapped and read-only. `normalised` says whether they were normalised
    in the file; `note` describes their origin in results.
    """

    descriptors: FloatArray
    normalised: bool
    note: str


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


def read_descriptors(
    path: str | Path,
    benchmark: Benchmark,
    names: str | Path | None = None,
    in_memory: int = IN_MEMORY,
    chunk_bytes: int = CHUNK_BYTES,
) -> AlignedDescriptors:
    """The descriptors in a file, one for each image of the benchmark.

    Without names, rows are in the benchmark's order: gallery, distractors, queries. With names (`names`, else those in
    the file, else those in a `.txt` beside it), each image gets the row with its name (see `align`), which is its path
    as in rankings; rows of other images are ignored.

    Copies larger than `in_memory` go to a temporary file in TMPDIR, which is deleted with the process.

    Args:
        path: see `read_table` for the formats.
        benchmark: the benchmark with the images.
        names: a text file with the name of each row, one per line; if gallery and queries are separate, the gallery's
            names come first.
        in_memory: largest size in bytes of descriptors that are loaded into memory.
        chunk_bytes: bytes that are processed at a time.

    Raises:
        UserError: like `read_table` and `align`; if the number of rows differs from the number of images or names; for
            descriptors that are not finite, or zero and therefore without direction.
    """
    path, source = Path(path), benchmark.source
    table, listed = _read_with_names(path, benchmark, Path(names) if names else None)
    if listed is None:
        rows = np.arange(len(source))
    else:
        wanted = [source.name(position) for position in range(len(source))]
        rows = align(wanted, listed, f"{path} for {benchmark.name}")
    chunks = list(row_chunks(len(rows), table.dim, chunk_bytes))
    norms = np.concatenate([_norms(table.rows(rows[chunk])) for chunk in chunks])
    for wrong, what in ((~np.isfinite(norms), "not finite"), (norms == 0, "zero, which has no direction")):
        if wrong.any():
            bad = [source.name(position) for position in np.flatnonzero(wrong).tolist()]
            raise UserError(f"{path}: {len(bad):,} of {len(rows):,} descriptors are {what}: {truncate_list(bad, 5)}")
    deviation = float(np.abs(norms - 1).max())
    exact, normalised = deviation <= EXACT, deviation <= ROUNDED
    note = f"from {path.name}" + ("" if normalised else ", normalised here")
    if exact and 4 * len(rows) * table.dim > in_memory and _is_float32_table(table, rows):
        return AlignedDescriptors(table.parts[0], normalised, note)

    def unit_rows() -> Iterator[NDArray[Any]]:
        for chunk in chunks:
            taken = table.rows(rows[chunk])
            yield taken if exact else taken / norms[chunk, None]

    return AlignedDescriptors(assemble(len(rows), table.dim, unit_rows(), in_memory), normalised, note)


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


def read_names(path: Path) -> list[str]:
    """The names in a text file, one per line; blank lines are ignored. Raises UserError if it cannot be read."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise UserError(f"the names of descriptors cannot be read: {path} ({error.strerror})") from error
    return [os.fsdecode(line.strip()) for line in lines if line.strip()]


def write_names(path: Path, benchmark: Benchmark) -> None:
    """Write the names of a benchmark's images, one per line, in the order of `read_descriptors`, for `read_names`.

    Raises UserError for a name with a line break or with spaces around it, and if the file cannot be written.
    """
    names = [os.fsencode(benchmark.source.name(position)) for position in range(len(benchmark.source))]
    for name in names:
        if name != name.strip() or len(name.splitlines()) != 1:
            raise UserError(f"{os.fsdecode(name)!r} cannot be one line of a list: rename the image")
    try:
        write_bytes(path, b"".join(name + b"\n" for name in names))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def align(wanted: Sequence[str], listed: Sequence[str], what: str) -> IntArray:
    """The position of each wanted name in `listed`: by the whole name, else without extension, else by its last part.

    The shorter forms count only if they are unique on both sides.
    Raises UserError, starting with `what`, for names that are listed twice, and for wanted names that are not listed or
    are ambiguous.

    >>> align(["jpg/a.jpg", "jpg/b.jpg"], ["b", "jpg/a.png"], "d.npy").tolist()
    [1, 0]
    """
    if twice := _repeated(listed):
        raise UserError(f"{what}: names are listed more than once: {truncate_list(twice, 5)}")
    rows = np.full(len(wanted), -1)
    ambiguous = np.zeros(len(wanted), np.bool_)
    ours, theirs = list(wanted), list(listed)
    for shorten in (str, _without_suffix, os.path.basename):
        left = np.flatnonzero(rows < 0).tolist()
        if not left:
            break
        ours, theirs = list(map(shorten, ours)), list(map(shorten, theirs))
        places = dict(zip(theirs, range(len(theirs)), strict=True))
        repeated = {*_repeated(ours), *_repeated(theirs)}
        for position in left:
            place = places.get(ours[position])
            ambiguous[position] = place is not None and ours[position] in repeated
            if place is not None and not ambiguous[position]:
                rows[position] = place
    if ambiguous.any():
        names = [wanted[position] for position in np.flatnonzero(ambiguous).tolist()]
        raise UserError(
            f"{what}: {len(names):,} of {len(wanted):,} images cannot be told apart by these names: "
            f"{truncate_list(names, 5)} (list such paths, or leave the names out and keep the benchmark's order)"
        )
    if missing := [wanted[position] for position in np.flatnonzero(rows < 0).tolist()]:
        raise UserError(
            f"{what}: {len(missing):,} of {len(wanted):,} images are not listed: {truncate_list(missing, 5)} "
            "(write_names=FILE in the same command writes all names)"
        )
    return rows


def _read_with_names(path: Path, benchmark: Benchmark, names: Path | None) -> tuple[Table, list[str] | None]:
    """A file's table, and the names of its rows, if any. Raises UserError if their numbers differ."""
    beside = path.with_suffix(".txt")
    listed = read_names(names) if names else read_names(beside) if beside.is_file() else None
    images, gallery = len(benchmark.source), benchmark.num_gallery

    def fits(counts: tuple[int, ...]) -> bool:
        return sum(counts) == len(listed) if listed else counts in ((gallery, images - gallery), (images,))

    table = read_table(path, fits)
    if table.names is not None and names is None:
        listed = table.names
    have = " and ".join(f"{len(part):,}" for part in table.parts)
    if listed is not None and len(listed) != len(table):
        raise UserError(f"{path} has {have} descriptors, and {len(listed):,} names are listed for them")
    if listed is None and not fits(tuple(len(part) for part in table.parts)):
        raise UserError(
            f"{path} has {have} descriptors for the {images:,} images of {benchmark.name}, {gallery:,} in the gallery "
            f"and then {images - gallery:,} queries: write_names=FILE in the same command writes the images' names in "
            f"this order; or list the names of your rows, one per line, in names=FILE or {beside.name}"
        )
    return table, listed


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


def _is_float32_table(table: Table, rows: IntArray) -> bool:
    """Whether the requested rows are exactly those of the file, as float32."""
    part, *others = table.parts
    whole = not others and len(rows) == len(part) and bool((np.diff(rows) == 1).all())
    return whole and part.dtype == np.float32 and part.flags.c_contiguous


def _norms(descriptors: NDArray[np.number]) -> NDArray[np.float64]:
    """L2 norms, in double precision, so that float32 values cannot overflow."""
    wide = descriptors.astype(np.float64)
    return np.sqrt(np.einsum("nd,nd->n", wide, wide))


def _repeated(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, in order of their first occurrence."""
    return [name for name, times in Counter(names).items() if times > 1]


def _without_suffix(name: str) -> str:
    """A name without an image extension; other dots in the name are kept."""
    stem, _, suffix = name.rpartition(".")
    return stem if f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__

"""Anyone's descriptors, put into the order of a benchmark's images so that the same protocol can measure them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, InputError
from src.errors import some
from src.extraction.foreign_files import Table, read_table
from src.extraction.foreign_names import aligned, read_names

# Descriptors of more bytes than this are not brought into memory.
LARGE = 2**30
# Numbers looked at together.
AT_ONCE = 2**21
# Lengths this near to 1 are left as they are: float32 does not get much nearer.
EXACT = 1e-5
# Lengths this near to 1 belong to descriptors that were normalised before they were rounded, to half precision say.
ROUNDED = 2e-3


@dataclass(frozen=True)
class Foreign:
    """Descriptors that came in a file.

    `descriptors` are (images, D) float32, L2-normalised, in the order of the benchmark's images: gallery, distractors,
    queries. Those of more than 1 GiB are mapped into memory, and read-only where the file itself is mapped.
    `normalised` says whether they were normalised in the file, `note` what results say of where they come from.
    """

    descriptors: NDArray[np.float32]
    normalised: bool
    note: str


def read_descriptors(path: str | Path, benchmark: Benchmark, names: str | Path | None = None) -> Foreign:
    """The descriptors in a file, one for each image of the benchmark.

    Without names they stand in the benchmark's order: gallery, distractors, queries. With names (`names`, else those in
    a `.safetensors`, else the `.txt` beside the file) each image gets the row of its name (see `aligned`), which is its
    path as rankings give it; rows of other images are left out.

    What has to be copied and is larger than 1 GiB goes to a temporary file in TMPDIR, which is gone with the process.

    Args:
        path: see `read_table` for the formats.
        benchmark: whose images.
        names: a text file with the name of each row, one a line; of a file with gallery and queries apart first the
            gallery's, then the queries'.

    Raises:
        InputError: as `read_table` and `aligned`; another number of rows than of images or names; descriptors that are
            not finite, or zero and so without direction.
    """
    path, source = Path(path), benchmark.source
    table, listed = _with_names(path, benchmark, Path(names) if names else None)
    if listed is None:
        rows = np.arange(len(source))
    else:
        wanted = [source.name(position) for position in range(len(source))]
        rows = aligned(wanted, listed, f"{path} for {benchmark.name}")
    lengths = np.concatenate([_lengths(table.rows(rows[chunk])) for chunk in _chunks(len(rows), table.dim)])
    _check_lengths(lengths, source.name, path)
    off = float(np.abs(lengths - 1).max())
    note = f"descriptors of {path.name}" + ("" if off <= ROUNDED else ", normalised here")
    return Foreign(_normalised(table, rows, lengths, exact=off <= EXACT), off <= ROUNDED, note)


def _with_names(path: Path, benchmark: Benchmark, names: Path | None) -> tuple[Table, list[str] | None]:
    """A file's table, and the names of its rows where there are any. Raises InputError when their numbers differ."""
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
        raise InputError(f"{path} has {have} descriptors, and {len(listed):,} names are listed for them")
    if listed is None and not fits(tuple(len(part) for part in table.parts)):
        raise InputError(
            f"{path} has {have} descriptors for the {images:,} images of {benchmark.name}, {gallery:,} in the gallery "
            f"and then {images - gallery:,} queries ({beside.name} beside it may say which is which, a name a line)"
        )
    return table, listed


def _lengths(descriptors: NDArray[np.number]) -> NDArray[np.float64]:
    """L2 norms, in double precision, where no float32 overflows."""
    wide = descriptors.astype(np.float64)
    return np.sqrt(np.einsum("nd,nd->n", wide, wide))


def _check_lengths(lengths: NDArray[np.float64], name: Callable[[int], str], path: Path) -> None:
    for wrong, what in ((~np.isfinite(lengths), "not finite"), (lengths == 0, "zero, which has no direction")):
        if wrong.any():
            names = [name(position) for position in np.flatnonzero(wrong).tolist()]
            raise InputError(f"{path}: {len(names):,} of {len(lengths):,} descriptors are {what}: {some(names, 5)}")


def _normalised(
    table: Table, rows: NDArray[np.int64], lengths: NDArray[np.float64], exact: bool
) -> NDArray[np.float32]:
    """The rows at length 1, which `exact` says they have; the file's own memory map where it is that already."""
    size = 4 * len(rows) * table.dim
    whole = len(table.parts) == 1 and len(rows) == len(table) and bool((np.diff(rows) == 1).all())
    if exact and whole and size > LARGE and table.parts[0].dtype == np.float32 and table.parts[0].flags.c_contiguous:
        return table.parts[0]
    result = _room(len(rows), table.dim)
    for chunk in _chunks(len(rows), table.dim):
        part = table.rows(rows[chunk])
        result[chunk] = part if exact else part / lengths[chunk, None]
    return result


def _room(images: int, dim: int) -> NDArray[np.float32]:
    """Room for descriptors, in memory or in a file that nobody else sees."""
    size, folder = 4 * images * dim, tempfile.gettempdir()
    if size <= LARGE:
        return np.empty((images, dim), np.float32)
    if shutil.disk_usage(folder).free < size:
        raise InputError(f"{size / 1e9:.1f} GB of descriptors do not fit into {folder}: name another folder in TMPDIR")
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=(images, dim))


def _chunks(images: int, dim: int) -> Iterator[slice]:
    step = max(1, AT_ONCE // dim)
    for start in range(0, images, step):
        yield slice(start, start + step)

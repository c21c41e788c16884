"""Descriptors of other projects, in the order of a benchmark's images, to evaluate them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, FloatArray, IntArray
from dolglab.data.sources import IMAGE_SUFFIXES
from dolglab.errors import UserError, truncate_list
from dolglab.extraction.descriptor_files import Table, read_table
from dolglab.io import write_bytes
from dolglab.retrieval.large_arrays import assemble, row_chunks

# Descriptors up to this size in bytes are loaded into memory; and the bytes that are processed at a time.
IN_MEMORY, CHUNK_BYTES = 2**30, 2**23
# Vectors whose length is this close to 1 are not normalised again: float32 is hardly more precise.
EXACT = 1e-5
# Vectors whose length is this close to 1 were normalised before rounding, for example to half precision.
ROUNDED = 2e-3


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

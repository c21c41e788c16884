"""Tables of descriptors that may be larger than memory: read in chunks, memory-mapped, and assembled."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import FloatArray, IntArray
from dolglab.errors import UserError

# Tables up to this size in bytes are kept in memory; and the bytes that are processed at a time.
IN_MEMORY, CHUNK_BYTES = 4 * 2**30, 32 * 2**20


def row_chunks(rows: int, dim: int, chunk_bytes: int = CHUNK_BYTES) -> Iterator[slice]:
    """Consecutive slices over `rows` rows, each of at most `chunk_bytes` of float32 and at least one row.

    >>> list(row_chunks(5, dim=8, chunk_bytes=64))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, chunk_bytes // (4 * max(1, dim)))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def read_chunks(table: FloatArray) -> Iterator[FloatArray]:
    """The rows chunk by chunk; pages of a read-only memory map are released after their chunk."""
    mapping = memory_map_of(table)
    for rows in row_chunks(*table.shape):
        yield table[rows]
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)


def assemble(rows: int, dim: int, chunks: Iterable[NDArray[np.floating]], in_memory: int = IN_MEMORY) -> FloatArray:
    """Assemble consecutive chunks to (rows, dim) float32.

    In memory or, beyond `in_memory` bytes, memory-mapped (read-only) from a temporary file that is deleted with the
    array. Raises UserError if there is no space for the file.
    """
    size = rows * dim * 4
    if size <= in_memory:
        whole, start = np.empty((rows, dim), np.float32), 0
        for chunk in chunks:
            whole[start : start + len(chunk)] = chunk
            start += len(chunk)
        return whole
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"{rows} x {dim} descriptors need {size / 2**30:.1f} GiB in {folder}, which has {free / 2**30:.1f}: name "
            "another folder by the environment variable TMPDIR"
        )
    with tempfile.TemporaryFile() as file:
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, np.float32).data)
        file.flush()
        return np.memmap(file, np.float32, "r", shape=(rows, dim))


def l2_normalized(rows: NDArray[np.floating]) -> FloatArray:
    """Rows scaled to length one, (N, D) float32; a row of zeros is not changed.

    >>> l2_normalized(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)


def take_rows(table: NDArray[np.floating], positions: IntArray) -> NDArray[np.floating]:
    """The rows at these positions, (n, D), without a copy if the positions are consecutive."""
    if len(positions) and (np.diff(positions) == 1).all():
        return table[positions[0] : positions[0] + len(positions)]
    return table[positions]


def memory_map_of(array: NDArray[np.generic]) -> mmap.mmap | None:
    """The memory map that contains an array, if its pages can be released and read again."""
    base, mode = array, "c"
    while isinstance(base, np.ndarray):
        mode = base.mode if isinstance(base, np.memmap) else mode
        base = base.base
    # The changed pages of a copy-on-write map ("c") exist nowhere else.
    return base if isinstance(base, mmap.mmap) and mode != "c" and hasattr(base, "madvise") else None

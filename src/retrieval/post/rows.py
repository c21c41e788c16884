"""Descriptors in chunks of rows, so that a gallery larger than memory can be made anew."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.retrieval.products import mapping_of

# Galleries of more bytes than this go to a temporary file.
IN_MEMORY = 4 * 2**30
CHUNK = 32 * 2**20


def chunks(rows: int, dim: int, size: int = CHUNK) -> Iterator[slice]:
    """Consecutive slices over `rows` rows, each of at most `size` bytes of float32 and at least one row."""
    step = max(1, size // (4 * max(1, dim)))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def parts(gallery: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The rows chunk by chunk; of a read-only memory map, no pages are held for longer than their chunk."""
    mapping = mapping_of(gallery)
    for rows in chunks(*gallery.shape):
        yield gallery[rows]
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)


def assembled(
    rows: int, dim: int, consecutive: Iterable[NDArray[np.float32]], in_memory: int = IN_MEMORY
) -> NDArray[np.float32]:
    """Parts put together to (rows, dim) float32: in memory or, beyond `in_memory` bytes, mapped from a temporary file.

    The file goes with the array. Raises InputError when there is no room for it.
    """
    size = rows * dim * 4
    if size <= in_memory:
        whole, start = np.empty((rows, dim), np.float32), 0
        for part in consecutive:
            whole[start : start + len(part)] = part
            start += len(part)
        return whole
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InputError(
            f"a changed gallery of {rows} x {dim} needs {size / 2**30:.1f} GiB in {folder}, which has "
            f"{free / 2**30:.1f}: name another folder by the environment variable TMPDIR"
        )
    with tempfile.TemporaryFile() as file:
        for part in consecutive:
            file.write(np.ascontiguousarray(part).data)
        file.flush()
        return np.memmap(file, np.float32, "r", shape=(rows, dim))


def normalized(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length one, (N, D) float32; a row of zeros stays as it is."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)

"""Concatenation of arrays that may exceed memory; large results are in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Larger arrays (bytes) are in a file; rows processed at a time.
IN_MEMORY, BLOCK = 64 * 2**20, 1_000_000
# 2**64 divided by the golden ratio: multiplication by it spreads values over all bits.
SPREAD = np.uint64(0x9E3779B97F4A7C15)


def put_together(parts: Iterable[NDArray[Any]], kind: DTypeLike, in_memory: int = IN_MEMORY) -> NDArray[Any]:
    """Concatenate parts, (n,) each, of dtype `kind`; names are as wide as the widest part.

    The result is in memory or, if larger than `in_memory` bytes, mapped from a temporary file that is deleted with the
    array, so that the system can release unused pages.

    >>> put_together([np.array([b"a"]), np.array([b"bcd", b""])], "S1").tolist()
    [b'a', b'bcd', b'']
    """
    parts, held, size = iter(parts), [np.empty(0, kind)], 0
    for part in parts:
        held.append(part)
        size += part.nbytes
        if size > in_memory:
            return _spooled(chain(held, parts))
    return np.concatenate(held)


def _spooled(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate parts in a temporary file, and map it."""
    kind, rows = np.dtype("S1"), 0
    with ExitStack() as files:
        file = files.enter_context(tempfile.TemporaryFile())
        for part in parts:
            if not rows:
                kind = part.dtype
            elif part.dtype.itemsize > kind.itemsize:
                # Rewrite everything with wider names.
                before = _mapped(file, kind, rows)
                file, kind = files.enter_context(tempfile.TemporaryFile()), part.dtype
                for block in blocks(before):
                    file.write(block.astype(kind).tobytes())
            file.write(part.astype(kind).tobytes())
            rows += len(part)
        return _mapped(file, kind, rows)


def _mapped(file: IO[bytes], kind: np.dtype[Any], rows: int) -> NDArray[Any]:
    """Map the rows of a file, which may be closed afterwards."""
    file.flush()
    return np.asarray(np.memmap(file, kind, "r+", shape=rows))


def blocks(array: NDArray[Any], rows: int = BLOCK) -> Iterator[NDArray[Any]]:
    """Consecutive blocks of at most so many rows."""
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def repeated_names(names: NDArray[np.bytes_]) -> list[bytes]:
    """Names that occur more than once, sorted; only 8 bytes per name are sorted."""
    hashes = put_together(map(_hashes, blocks(names)), np.uint64)
    hashes.sort()
    twice = put_together((later[later == before] for before, later in _neighbours(hashes)), np.uint64)
    if not len(twice):
        return []
    # Few names share a hash, and these may differ.
    alike, counts = np.unique(
        np.concatenate([block[np.isin(_hashes(block), twice)] for block in blocks(names)]), return_counts=True
    )
    return alike[counts > 1].tolist()


def _neighbours(array: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Blocks of all rows but the last, with the blocks of their successors."""
    return zip(blocks(array[:-1]), blocks(array[1:]), strict=True)


def _hashes(names: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """A 64-bit hash of each name, (n,)."""
    words = -(-names.dtype.itemsize // 8)
    padded = np.ascontiguousarray(names.astype(f"S{8 * words}")).view(np.uint64).reshape(len(names), words)
    found = np.zeros(len(names), np.uint64)
    for column in padded.T:
        found = (found ^ column) * SPREAD
        found ^= found >> np.uint64(32)
    return found

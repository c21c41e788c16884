"""Which of the images that a list names are on disk."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.errors import some

# Asking for a file's size is waiting, on a network file system above all.
THREADS = 16
AT_ONCE = 4096


def file_sizes(root: Path, names: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Bytes of each file below `root`, (N,); -1 where there is none."""
    folder = os.path.join(os.fsencode(root), b"")

    def size(name: bytes) -> int:
        try:
            return os.stat(folder + name).st_size
        except (OSError, ValueError):
            return -1

    def sizes(start: int) -> NDArray[np.int64]:
        return np.array([size(name) for name in names[start : start + AT_ONCE].tolist()], np.int64)

    with ThreadPoolExecutor(THREADS) as pool:
        return np.concatenate([np.empty(0, np.int64), *pool.map(sizes, range(0, len(names), AT_ONCE))])


def require_all(root: Path, names: NDArray[np.bytes_], sizes: NDArray[np.int64], advice: str) -> None:
    """Raise InputError counting the files that `file_sizes` did not find, with the first names and the advice."""
    missing = names[sizes < 0]
    if len(missing):
        first = some([os.fsdecode(name) for name in missing.tolist()], 5)
        raise InputError(f"{len(missing):,} of {len(names):,} images are not in {root}: {first} ({advice})")

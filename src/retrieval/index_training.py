"""What the trained indexes share: the sample they learn from, how k-means runs, how codes are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.retrieval.index import ROWS_AT_ONCE, check_whole

# Bits of each part of a code. Some of faiss's tables are for multiples of 8 centroids, so 1 and 2 bits cannot be
# searched; beyond 12, a part has more centroids than a training sample should be asked for.
BITS = range(4, 13)


def training_rows(descriptors: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    """`count` of the descriptors, drawn without repetition and in gallery order; all where there are no more."""
    if count >= len(descriptors):
        return np.ascontiguousarray(descriptors, np.float32)
    drawn = np.random.default_rng(seed).choice(len(descriptors), count, replace=False)
    return np.ascontiguousarray(descriptors[np.sort(drawn)], np.float32)


def set_clustering(parameters: Any, iterations: int, seed: int, rows: int) -> None:
    """Have faiss's k-means use every row, for so many iterations, and print nothing about how many there are."""
    parameters.niter = iterations
    parameters.seed = seed
    parameters.min_points_per_centroid = 1
    parameters.max_points_per_centroid = max(1, rows)


def check_code(code_bytes: int, bits: int) -> None:
    """Raise InputError for codes that cannot be."""
    check_whole(1, code_bytes=code_bytes)
    if bits not in BITS:
        raise InputError(f"index.bits must lie in {BITS[0]} to {BITS[-1]}, not {bits}")


def code_parts(dim: int, code_bytes: int, bits: int, rows: int, kind: str) -> int:
    """Into how many parts product quantisation cuts a descriptor, each part's code having so many bits.

    Raises InputError where the parts do not divide the descriptor, or the rows are fewer than the centroids of a part.
    """
    parts, rest = divmod(8 * code_bytes, bits)
    if rest or dim % parts:
        raise InputError(
            f"{kind}: codes of {code_bytes} bytes, {bits} bits a part, do not cut descriptors of {dim} values evenly: "
            f"choose index.code_bytes so that 8 * code_bytes / bits divides {dim}"
        )
    if rows < 2**bits:
        raise InputError(
            f"{kind}: codes of {bits} bits a part are trained on at least {2**bits} descriptors, here are {rows}: "
            "use index=flat, or lower index.bits"
        )
    return parts


def add_in_parts(index: Any, descriptors: NDArray[np.float32]) -> None:
    """Add a gallery to a trained index without a copy of the whole."""
    for start in range(0, len(descriptors), ROWS_AT_ONCE):
        index.add(np.ascontiguousarray(descriptors[start : start + ROWS_AT_ONCE], np.float32))

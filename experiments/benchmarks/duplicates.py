"""Near-duplicates of a library: comparison within cells and of all pairs, and the share of pairs found.

    OMP_NUM_THREADS=1 PYTHONPATH=. python experiments/benchmarks/duplicates.py [--images N] [--photos DIR]

Descriptors are those of one_bit_codes.py. A fifth of them are near copies of others, with cosines of 0.9 to 1. Times
are processor times. Files are in the system's temporary folder (1 GB for 100,000) and are removed at the end.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import faiss
import numpy as np
from experiments.benchmarks.index import DIM, Table, normalised
from experiments.benchmarks.one_bit_codes import expanded, made_up, spent

from dolglab.library.contents import Photo
from dolglab.library.duplicates import BLOCKS, cell_pairs, near_pairs
from dolglab.library.library import Library

IDENTITY = {"model": "random", "title": "random", "source": "random", "dim": DIM, "scales": [1.0], "max_side": 1}
COSINE = 0.9
BLOCK = 10_000


def main() -> None:
    """Make the descriptors, compare, print."""
    parser = argparse.ArgumentParser(description="Near-duplicates within cells, and of all pairs.")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--photos", help="a folder of photographs")
    options = parser.parse_args()
    print(f"faiss {faiss.__version__}, {faiss.omp_get_max_threads()} thread, {options.images:,} x {DIM}\n")
    with tempfile.TemporaryDirectory() as folder:
        compare("made up", Path(folder), np.concatenate(list(made_up(options.images)[1])))
    if options.photos:
        with tempfile.TemporaryDirectory() as folder:
            compare("of photos", Path(folder), np.concatenate(list(expanded(options.photos, options.images)[1])))


def compare(name: str, folder: Path, gallery: Table) -> None:
    """Both methods on one library."""
    rng, count = np.random.default_rng(0), len(gallery)
    copies, originals = np.split(rng.permutation(count)[: 2 * (count // 5)], 2)
    # A step of this length from a vector of length 1 gives cosines of at least 0.9.
    steps = normalised(rng.standard_normal((len(copies), DIM))) * rng.uniform(0, 0.48, (len(copies), 1)).astype(
        np.float32
    )
    rows = np.array(gallery)
    rows[copies] = normalised(rows[originals] + steps)
    library = Library.open(folder / "library", IDENTITY | {"colour": "srgb", "decoding": "full"})
    with library.writing():
        for start in range(0, count, BLOCK):
            photos = [Photo(f"/photos/{n:08d}.jpg", 1, 1, (3, 4)) for n in range(start, min(count, start + BLOCK))]
            library.add(photos, rows[start : start + BLOCK])
    keys, found = library.keys(), []
    for find in (near_pairs, cell_pairs):
        seconds, blocks = spent(lambda find=find: list(find(library, keys, COSINE, BLOCKS)))
        pairs = np.unique(np.sort(np.concatenate(blocks), axis=1), axis=0)
        found.append((seconds, pairs[:, 0] * count + pairs[:, 1]))
    library.close()
    (slow, exact), (fast, cells) = found
    print(
        f"{name}: all pairs {slow:.1f} s, within cells {fast:.1f} s, {slow / fast:.1f} times faster; of "
        f"{len(exact):,} pairs with a cosine of {COSINE} or more {np.isin(exact, cells).mean():.5f} found",
        flush=True,
    )


if __name__ == "__main__":
    main()

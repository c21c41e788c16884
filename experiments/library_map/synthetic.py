"""Make a large synthetic library: python experiments/library_map/synthetic.py PHOTOS LIBRARY [--photos 100000]

Descriptors are random mixtures around a few hundred centres. Files are hard links, next to the library, to the photos
of the folder PHOTOS, so that thumbnails are real.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from dolglab.library.contents import Photo
from dolglab.library.library import Library

CENTRES, SPREAD, BATCH = 300, 0.35, 10_000


def main() -> None:
    """Make the library."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("library", type=Path)
    parser.add_argument("--photos", dest="count", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    options = parser.parse_args()
    files = [path for path in sorted(options.photos.resolve().iterdir()) if path.suffix == ".jpg"]
    identity = {"model": "synthetic", "title": "Random mixtures", "source": "synthetic", "dim": options.dim}
    identity |= {"scales": [1.0], "max_side": 512, "colour": "srgb", "decoding": "scaled"}
    library = Library.open(options.library, identity)
    rng = np.random.default_rng(0)
    # A few directions have most of the variance, as with real descriptors.
    centres = rng.normal(size=(CENTRES, options.dim)) * np.arange(1, options.dim + 1) ** -0.5
    # Some centres have many photos, most few.
    weights = rng.pareto(2.0, CENTRES) + 0.05
    folder = options.library.resolve().with_name(f"{options.library.name}-photos")
    with library.writing():
        for start in range(0, options.count, BATCH):
            own = rng.choice(CENTRES, min(BATCH, options.count - start), p=weights / weights.sum())
            noise = rng.normal(size=(len(own), options.dim)) * np.arange(1, options.dim + 1) ** -0.5
            rows = centres[own] + SPREAD * noise * rng.gamma(2.0, 1.0, (len(own), 1))
            rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
            photos = [
                link(files[int(rng.integers(len(files)))], folder / f"place {centre:03d}" / f"{start + row:06d}.jpg")
                for row, centre in enumerate(own.tolist())
            ]
            library.add(photos, rows)


def link(file: Path, path: Path) -> Photo:
    """A photo of the library whose file is a hard link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(file, path)
    stat = path.stat()
    decade = {"decade": f"{1900 + 10 * (int(path.stem) % 13)}s"}
    return Photo(str(path), stat.st_size, stat.st_mtime_ns, (300, 400), None, decade)


if __name__ == "__main__":
    main()

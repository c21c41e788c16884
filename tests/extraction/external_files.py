"""A small benchmark, and descriptors of its images in formats of other projects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from dolglab.contracts import Benchmark, GroundTruth
from dolglab.data.sources import FolderSource, JoinedSource
from dolglab.measures import RevisitedMeasure

# Seven of the gallery, one of them a distractor of another root, and two queries.
GALLERY = ["jpg/été à.jpg", "jpg/b.jpg", "jpg/c.v2.jpg", "jpg/d.jpg", "jpg/e.jpg", "jpg/f.jpg"]
FURTHER = ["others/jpg/0a/0aff.png"]
QUERIES = ["jpg/p.jpg", "jpg/q.jpg"]
IMAGES = GALLERY + FURTHER + QUERIES
DIM = 5


def benchmark_of(gallery: list[str], queries: list[str]) -> Benchmark:
    none = (np.empty(0, np.int64),) * len(queries)
    return Benchmark(
        name="small",
        source=JoinedSource(FolderSource("x", gallery), FolderSource("x", queries)),
        num_gallery=len(gallery),
        queries=np.arange(len(gallery), len(gallery) + len(queries)),
        boxes=np.full((len(queries), 4), np.nan),
        ground_truth=GroundTruth(none, none, none),
        crop="pil",
        digest="",
        measure=RevisitedMeasure(),
    )


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    """One row after the other."""
    return np.array([row / np.sqrt(sum(float(x) ** 2 for x in row)) for row in rows], np.float32)


def save_npy(path: Path, rows: NDArray[Any]) -> Path:
    np.save(path, rows)
    return path


def write_names(path: Path, names: list[str]) -> Path:
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return path


def save_matlab(path: Path, **tables: Any) -> Path:
    savemat(path, tables)
    return path

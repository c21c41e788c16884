"""Libraries of made-up descriptors, without a network."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dolglab.library.contents import Photo
from dolglab.library.library import Library


def identity(dim: int, model: str = "m") -> dict:
    how = {"scales": [1.0], "max_side": 64, "colour": "srgb", "decoding": "full"}
    return {"model": model, "title": "M", "source": "m", "dim": dim, **how}


def unit(count: int, dim: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def library_of(folder: Path, photos: Sequence[Photo], descriptors: np.ndarray, segments: int = 1) -> Library:
    library = Library.open(folder, identity(descriptors.shape[1]))
    for part in np.array_split(np.arange(len(photos)), segments):
        library.add([photos[place] for place in part], descriptors[part])
    return library


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))

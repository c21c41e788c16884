"""A few small photos, and a network that describes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dolglab.data.photos import photo_pixels
from dolglab.sharing.loading import LoadedExtractor, load_extractor


@pytest.fixture(scope="session")
def loaded() -> LoadedExtractor:
    return load_extractor("efficientnet_lite0", max_side=64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos of as many patterns, in two sub-folders, one with an odd name."""
    root = tmp_path / "photos"
    for number, name in enumerate(("a/0", "a/1", "a/photo = '\"é🙂\n", "b c/3", "b c/4", "b c/5")):
        save(root / f"{name}.jpg", number)
    return root


def save(path: Path, seed: int, cell: int = 12) -> None:
    """A pattern of 6 x 4 cells of so many pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(blocks.repeat(cell, 0).repeat(cell, 1)).save(path)


def describe(loaded: LoadedExtractor, name: str) -> np.ndarray:
    return loaded.describe([photo_pixels(name, 64)])

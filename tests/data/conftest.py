"""Small real files for the tests of `dolglab.data`."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dolglab.contracts import TrainingSet
from dolglab.data.sources import FolderSource, stable_ids

MakePhoto = Callable[..., NDArray[np.uint8]]
Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def photo() -> MakePhoto:
    """Makes a smooth (height, width, 3) picture, different for each seed."""

    def make(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
        coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
        pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        return pixels.astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Encodes pixels with Pillow in a given format and mode."""

    def run(pixels: NDArray[Any], kind: str = "JPEG", mode: str | None = None, **options: Any) -> bytes:
        image = Image.fromarray(pixels)
        buffer = io.BytesIO()
        (image.convert(mode) if mode else image).save(buffer, kind, **options)
        return buffer.getvalue()

    return run


@pytest.fixture
def training_set(tmp_path: Path, photo: MakePhoto, encode: Encode) -> TrainingSet:
    """Twelve JPEGs of different sizes, of three landmarks."""
    names = [f"photo {number}.jpg" for number in range(12)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encode(photo(60 + 7 * number, 120 - 5 * number, number), quality=90))
    labels = np.arange(12, dtype=np.int64) % 3
    return TrainingSet(FolderSource(tmp_path, names), stable_ids(names), labels, np.array(["a", "b", "c"]))


@pytest.fixture
def gldv2(tmp_path: Path, photo: MakePhoto, encode: Encode) -> Path:
    """GLDv2's layout: landmarks 7, 30 and 200 with 10 images each, listed in `train_clean.csv`."""
    jpeg = encode(photo(40, 50))
    rows = ["landmark_id,images"]
    for landmark in (200, 7, 30):
        ids = [f"{landmark * 0x123456789ABCD + 0x1111111111111 * number:016x}" for number in range(10)]
        rows.append(f"{landmark},{' '.join(ids)}")
        for name in ids:
            file = tmp_path / "train" / name[0] / name[1] / name[2] / f"{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(jpeg)
    (tmp_path / "train_clean.csv").write_text("\n".join(rows) + "\n")
    return tmp_path

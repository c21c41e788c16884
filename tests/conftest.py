"""Shared fixtures: the folder of expected values, and small generated data."""

from __future__ import annotations

import gc
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rankings import make_card_of as make_card_of
from rankings import make_ranking as make_ranking
from web_server import server as server

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_finish() -> None:
    """Exempt what was imported from garbage collection, which otherwise takes a seventh of the time of all tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of values computed with independent reference code."""
    folder = SHARED / "parity"
    if not folder.is_dir():
        pytest.skip("../shared/parity is not here")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not here")
    return folder


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six landmarks of ten photos: each has a coloured pattern, shifted and relit from photo to photo."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for landmark in range(6):
        colour = rng.integers(40, 216, 3)
        blocks = np.clip(colour + rng.integers(-90, 90, (6, 6, 1)), 0, 255).astype(np.uint8)
        pattern = cv2.resize(blocks, (128, 128), interpolation=cv2.INTER_NEAREST)
        folder = root / f"landmark {landmark}"
        folder.mkdir()
        for photo in range(10):
            x, y = rng.integers(0, 16, 2)
            image = np.clip(pattern[y : y + 96, x : x + 112] * rng.uniform(0.7, 1.2), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"{photo:02d}.jpg"), image)
    return root

"""DOLG landmark retrieval: train, evaluate and use, with PyTorch Lightning and Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from src.loading import LoadedModel

__version__ = "0.1.0"


def load(source: str | Path, scales: Sequence[float] = (1.0,), max_side: int = 1024) -> LoadedModel:
    """A trained network as a function of images (see `LoadedModel`): `src.load("hf://OWNER/NAME")("photo.jpg")`.

    Args:
        source: a checkpoint, an exported folder, hf://OWNER/NAME, released weights, "dinov2" or "efficientnet_lite0".
        scales: of each image, whose descriptors are averaged.
        max_side: images are shrunk to this many pixels before.

    Raises InputError for a source that is none of these.
    """
    # Torch takes seconds to import, and most of what imports this package does not want it.
    from src.loading import LoadedModel

    return LoadedModel(source, scales, max_side)

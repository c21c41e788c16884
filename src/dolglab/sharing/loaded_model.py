"""A trained network as a function of images: what `dolglab.load` gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dolglab.data.image_formats import BrokenImageError, reason
from dolglab.data.image_reading import pixels_of, shrink
from dolglab.errors import UserError
from dolglab.library.query import photo_pixels, ready_model

Picture = str | Path | Image.Image | NDArray[np.uint8]


class LoadedModel:
    """Describes images: the dot product of two descriptors is the cosine that a search ranks by.

    Args:
        source: a checkpoint, an exported folder, hf://OWNER/NAME, released weights, "dinov2" or "efficientnet_lite0".
        scales: of each image, whose descriptors are averaged.
        max_side: images are shrunk to this many pixels before.

    Attributes:
        dim: length of a descriptor.

    Raises UserError for a source that is none of these.
    """

    def __init__(self, source: str | Path, scales: Sequence[float] = (1.0,), max_side: int = 1024) -> None:
        ready = ready_model(str(source), scales, max_side)
        self.dim: int = ready.identity["dim"]
        self._extractor = ready.extractor
        self._max_side = max_side

    def __call__(self, images: Picture | list[Picture]) -> NDArray[np.float32]:
        """The L2-normalised descriptor of an image, (dim,), or those of a list of images, (n, dim).

        Args:
            images: paths, PIL images or RGB arrays (H, W, 3) uint8. Files and PIL images are turned upright as they
                state.

        Raises UserError for what is none of these or cannot be read.
        """
        if not isinstance(images, list):
            return self([images])[0]
        if not images:
            return np.empty((0, self.dim), np.float32)
        pixels = [torch.from_numpy(read(image, self._max_side)) for image in images]
        with torch.inference_mode():
            return self._extractor(pixels).float().cpu().numpy()


def read(image: Picture, max_side: int) -> NDArray[np.uint8]:
    """An image's pixels, shrunk to `max_side`, (H, W, 3) RGB. Raises UserError as the model does."""
    if isinstance(image, str | Path):
        return photo_pixels(str(image), max_side)
    pixels = _upright(image) if isinstance(image, Image.Image) else _checked(image)
    return shrink(np.ascontiguousarray(pixels), max_side)


def _upright(image: Image.Image) -> NDArray[np.uint8]:
    try:
        return pixels_of(image)
    except (BrokenImageError, OSError) as error:
        raise UserError(f"{image} cannot be read: {reason(error)}") from error


def _checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        if image.size:
            return image
        raise UserError(f"an image of shape {image.shape} has no pixels")
    what = f"an array {image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
    raise UserError(f"an image is a path, a PIL image or an array (height, width, 3) of uint8, not {what}")

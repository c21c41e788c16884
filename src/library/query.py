"""Photos that ask: read, cut to a box, described."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from src.contracts import InputError
from src.data.images import BrokenImageError, crop_query, decode, reason, shrink
from src.library.model import Ready
from src.library.photos import File

Box = tuple[float, float, float, float]


def describe_queries(ready: Ready, files: Sequence[File], box: Box | None = None) -> NDArray[np.float32]:
    """Descriptors of photos, (n, dim), of what is inside the box x1, y1, x2, y2 (pixels) where one is given.

    Raises InputError for a photo that cannot be read and for a box that is not inside it.
    """
    images = [torch.from_numpy(query_pixels(file, box, ready.identity["max_side"])) for file in files]
    with torch.inference_mode():
        return ready.extractor(images).float().cpu().numpy()


def query_pixels(file: File, box: Box | None, max_side: int) -> NDArray[np.uint8]:
    """A query's pixels, (H, W, 3), cut and then shrunk. Raises InputError as `describe_queries`."""
    try:
        pixels = decode(file.read())
    except (BrokenImageError, OSError) as error:
        raise InputError(f"{file.name} cannot be read: {reason(error)}") from error
    if box is not None:
        _check_box(box, pixels.shape[:2], file.name)
        pixels = crop_query(pixels, np.array(box, np.float64), "pil")
    return shrink(pixels, max_side)


def read_box(text: str) -> Box:
    """A box from "x1,y1,x2,y2". Raises InputError for anything else."""
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--box wants x1,y1,x2,y2 in pixels, not {text}") from None
    return x1, y1, x2, y2


def _check_box(box: Box, shape: tuple[int, ...], name: str) -> None:
    x1, y1, x2, y2 = box
    height, width = shape
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height) or round(x2) <= round(x1) or round(y2) <= round(y1):
        raise InputError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} is not inside {name}, of {width} x {height} pixels")

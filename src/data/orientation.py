"""Cameras that were held sideways: the orientation a file states, and pixels turned upright."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# The EXIF tag, and the mark before its block: files without it are not parsed.
TAG = 0x0112
MARK = b"Exif\0\0"
# An EXIF block stands in a JPEG's first segments, of 64 kB at most each; profiles may stand before it.
SEARCHED = 262_144


def jpeg_orientation(data: bytes) -> int:
    """What a JPEG states, 1 (upright) to 8; 1 where it states nothing, or nothing that can be read."""
    if data.find(MARK, 0, SEARCHED) < 0:
        return 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image_orientation(image)
    except Exception:  # Broken metadata make Pillow raise nearly anything; the pixels may be whole.
        return 1


def image_orientation(image: Image.Image) -> int:
    """What an open image states, 1 to 8."""
    try:
        stated = image.getexif().get(TAG, 1)
    except Exception:  # As above.
        return 1
    return stated if stated in range(1, 9) else 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A view of (H, W, 3) pixels as they are to be seen; orientations from 5 exchange height and width."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # Of what is then left: a mirror image, upside down, or both.
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]

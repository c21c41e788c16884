"""Scans of hundreds of megapixels, for descriptors that need a thousand pixels a side: shrunk while being decoded."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from src.contracts import Orientation
from src.data.images import BrokenImageError, Pixels, TooLargeError, decode, formats, rgb, shrink
from src.data.orientation import image_orientation, upright

# Pixels above which nothing is decoded: of formats that shrink by themselves, and of others, which take up to 14 bytes
# a pixel for a moment.
MAX_SCAN, MAX_WHOLE = 600_000_000, 400_000_000
# One at a time, and no other threads' images meanwhile know of Pillow's limit, which is the whole process's.
_ONE = threading.Lock()
# Modes that Pillow shrinks as they are.
REDUCED = ("L", "RGB", "RGBA", "CMYK")


def decode_shrunk(data: bytes, max_side: int, orientation: Orientation = "exif") -> Pixels:
    """An image with its longer side brought down to `max_side`, (H, W, 3) RGB, upright or as it is stored.

    Up to the usual limit exactly `shrink(decode(data))`. Above, up to `MAX_SCAN` or `MAX_WHOLE` pixels, one at a time:
    JPEG and JPEG 2000 are decoded at the smallest of their own scales that is no smaller than twice `max_side`, others
    whole and then shrunk. Raises BrokenImageError.
    """
    try:
        return shrink(decode(data, orientation), max_side)
    except TooLargeError:
        with _ONE, _without_limit():
            return shrink(_scan(data, 2 * max_side, orientation), max_side)


@contextmanager
def _without_limit() -> Iterator[None]:
    usual = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = usual


def _scan(data: bytes, least: int, orientation: Orientation) -> Pixels:
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=formats()) as image:
            warnings.simplefilter("ignore")
            most = MAX_SCAN if image.format in ("JPEG", "JPEG2000") else MAX_WHOLE
            if image.width * image.height > most:
                raise TooLargeError(f"{image.width} x {image.height} pixels, above the limit of {most}")
            pixels = _reduced(data, image, least)
            return np.ascontiguousarray(upright(pixels, image_orientation(image)) if orientation == "exif" else pixels)
    except BrokenImageError:
        raise
    except Exception as error:
        # Broken files make parsers raise almost anything.
        raise BrokenImageError(str(error) or type(error).__name__) from error


def _reduced(data: bytes, image: Image.Image, least: int) -> Pixels:
    """Pixels of which a side is at least `least` long, as far as the format can shrink by itself."""
    longer = max(image.size)
    if image.format == "JPEG" and image.mode != "CMYK":
        scale = least / longer
        sides = max(1, round(image.height * scale)), max(1, round(image.width * scale))
        return simplejpeg.decode_jpeg(data, "RGB", min_height=sides[0], min_width=sides[1], min_factor=1)
    if isinstance(image, Jpeg2KImageFile):
        image.reduce = max(0, (longer // least).bit_length() - 1)  # pyright: ignore[reportAttributeAccessIssue]
    elif image.mode in REDUCED:
        # By whole numbers and area, without a second copy of the whole.
        return rgb(image.reduce(max(1, longer // least)))
    return rgb(image)

"""What is wrong with an encoded image, or odd about it, found without training on it."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from dolglab.contracts import Orientation
from dolglab.data.image_reading import (
    FORMATS,
    BrokenImageError,
    NoImageError,
    Pixels,
    Reading,
    TooLargeError,
    check_sides,
    decode,
    formats,
    image_orientation,
    is_heic,
    jpeg_size,
    open_heic,
    reason,
    rgb,
    shrink,
    upright,
)


class Header(NamedTuple):
    """The suffix of such files, width and height in pixels."""

    suffix: str
    width: int
    height: int


def read_header(data: bytes) -> Header:
    """The header of an encoded image.

    Raises NoImageError for what is none, TooLargeError for more pixels than Pillow opens, BrokenImageError for others.
    """
    try:
        if is_heic(data):
            return Header(".heic", *open_heic(data).size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=formats()) as image:
                return Header(FORMATS[image.format or ""], *image.size)
    except UnidentifiedImageError as error:
        raise NoImageError("not an image") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError("too many pixels") from error
    except Exception as error:
        # Broken files make parsers raise almost anything.
        raise BrokenImageError(str(error) or type(error).__name__) from error


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


# What Pillow calls the formats of a file that a camera names .jpg; an MPO has further pictures behind the first.
JPEG_FORMATS = ("JPEG", "MPO")


class Finding(NamedTuple):
    """Why an image cannot be used, or, where it can, what is done to it."""

    reason: str
    used: bool


def inspect(data: bytes, reading: Reading) -> Finding | None:
    """Read a whole image as training does; None where there is nothing to say about it."""
    try:
        _read(data, reading)
    except BrokenImageError as error:
        return Finding(reason(error), used=False)
    try:
        odd = ", ".join(_oddities(data, reading))
    except Exception:  # Broken metadata make Pillow raise nearly anything; the pixels were whole.
        odd = "its metadata cannot be read"
    return Finding(odd, used=True) if odd else None


def _read(data: bytes, reading: Reading) -> None:
    """Raise BrokenImageError; a JPEG's bytes are all read, but at an eighth of the size."""
    shape = jpeg_size(data)
    if shape is not None:
        check_sides(*shape, reading.min_side)
        try:
            simplejpeg.decode_jpeg(data, "RGB", min_height=1, min_width=1, fastdct=True, fastupsample=True)
        except ValueError:
            # Pillow can still read some of what the strict decoder refuses.
            decode(data)
    else:
        height, width = decode(data).shape[:2]
        check_sides(height, width, reading.min_side)


def _oddities(data: bytes, reading: Reading) -> list[str]:
    with Image.open(io.BytesIO(data)) as image:
        jpeg = image.format in JPEG_FORMATS
        turn = image_orientation(image)
        found = [
            (not jpeg, f"{image.format}, read all the same"),
            (image.mode in ("CMYK", "YCCK"), f"{image.mode}, converted to RGB"),
            (image.mode.startswith("I"), "16 bits, of which the upper 8 are taken"),
            (not jpeg and getattr(image, "n_frames", 1) > 1, "animated, its first frame is taken"),
            (turn > 1 and reading.orientation == "exif", f"turned upright (EXIF orientation {turn})"),
        ]
    return [what for true, what in found if true]

"""What encoded images are before their pixels are decoded: formats, sizes, EXIF orientation, and what is wrong."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from dolglab.contracts import Orientation

Pixels = UInt8[np.ndarray, "_ _ 3"]

# Above this an image is refused before it is decoded; Pillow's own limit for a decompression bomb.
MAX_PIXELS = 178_956_970

# What is opened, and what such files are called. Pillow knows more, some of which start other programs (EPS). MPO is a
# JPEG to its opener.
FORMATS = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "JPEG2000": ".jp2",
    "BMP": ".bmp",
    "DIB": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tif",
}
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")

# The EXIF tag of the orientation, and the mark before an EXIF block: files without it are not parsed.
ORIENTATION_TAG = 0x0112
EXIF_MARK = b"Exif\0\0"
# An EXIF block stands in a JPEG's first segments, of 64 kB at most each; profiles may stand before it.
EXIF_WITHIN = 262_144


class BrokenImageError(ValueError):
    """Bytes that are no usable image; the message is the reason."""


class NoImageError(BrokenImageError):
    """Bytes of no format that is read."""


class TooLargeError(BrokenImageError):
    """More pixels than are decoded."""


class Header(NamedTuple):
    """The suffix of such files, width and height in pixels."""

    suffix: str
    width: int
    height: int


def read_header(data: bytes) -> Header:
    """The header of an encoded image.

    Raises NoImageError for what is none, TooLargeError for more pixels than Pillow opens, BrokenImageError for others.
    """
    with broken_image_errors():
        if is_heic(data):
            return Header(".heic", *open_heic(data).size)
        with open_image(data) as image:
            return Header(FORMATS[image.format or ""], *image.size)


def open_image(data: bytes) -> Image.Image:
    """An encoded image in one of `FORMATS` as Pillow opens it, not yet decoded. Raises what Pillow raises."""
    Image.init()
    # Not every Pillow knows all of them.
    return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])


@contextmanager
def broken_image_errors() -> Iterator[None]:
    """Have whatever a parser raises over bytes that are no whole image come as a BrokenImageError, without warnings."""
    try:
        with warnings.catch_warnings():
            # Notes on metadata, palettes and sizes: what matters here either decodes or raises.
            warnings.simplefilter("ignore")
            yield
    except BrokenImageError:
        raise
    except UnidentifiedImageError as error:
        raise NoImageError("not an image") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError("too many pixels") from error
    except Exception as error:
        # Broken files make parsers raise almost anything: OSError, SyntaxError, struct.error, RuntimeError, EOFError.
        raise BrokenImageError(str(error) or type(error).__name__) from error


def reason(error: Exception) -> str:
    """Why an image could not be read, in a few words on one line."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((words or type(error).__name__).split())


def jpeg_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | None:
    """Height and width of a JPEG that libjpeg-turbo can give as RGB; None for everything else.

    Raises TooLargeError.
    """
    if data[:2] != b"\xff\xd8":
        return None
    try:
        height, width, colourspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colourspace in ("CMYK", "YCCK"):
        return None
    check_pixels((int(width), int(height)), max_pixels)
    return int(height), int(width)


def check_pixels(size: tuple[int, int], limit: int) -> None:
    """Raise TooLargeError for an image of that width and height with more than `limit` pixels."""
    width, height = size
    if width * height > limit:
        raise TooLargeError(f"{width} x {height} pixels, above the limit of {limit}")


def check_sides(height: int, width: int, min_side: int) -> None:
    """Raise BrokenImageError for a side below `min_side` pixels."""
    if min(height, width) < min_side:
        raise BrokenImageError(f"{width} x {height} pixels, below the limit of {min_side} a side")


def jpeg_orientation(data: bytes, orientation: Orientation) -> int:
    """What a JPEG states, 1 (upright) to 8; 1 where that is ignored, or nothing is stated that can be read."""
    if orientation == "ignore" or data.find(EXIF_MARK, 0, EXIF_WITHIN) < 0:
        return 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image_orientation(image)
    except Exception:  # Broken metadata make Pillow raise nearly anything; the pixels may be whole.
        return 1


def image_orientation(image: Image.Image) -> int:
    """What an open image states, 1 to 8."""
    try:
        stated = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # As above.
        return 1
    return stated if stated in range(1, 9) else 1


def is_heic(data: bytes) -> bool:
    """Whether bytes are a HEIC file."""
    # The first of its brands may be one that AVIF has too.
    return data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS and b"avif" not in data[12:64]


def open_heic(data: bytes) -> Any:
    """A HEIC file, not yet decoded: `size` is width and height. Raises ImportError, and ValueError for a broken one."""
    try:
        from pillow_heif import open_heif
    except ImportError:
        raise ImportError("HEIC: pip install 'dolglab[heic]'") from None
    return open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)

"""What is wrong with an encoded image, in one kind of error, and the limits beyond which none is decoded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

# Above this an image is refused before it is decoded; Pillow's own limit for a decompression bomb.
MAX_PIXELS = 178_956_970
# Pixels that a byte may stand for: empty scans hold less than half of that. Smaller images are cheap in any case.
MAX_PIXELS_PER_BYTE, CHEAP_PIXELS = 20_000, 4_000_000


class BrokenImageError(ValueError):
    """Bytes that are no usable image; the message is the reason."""


class NoImageError(BrokenImageError):
    """Bytes of no format that is read."""


class UnsupportedImageError(BrokenImageError):
    """A whole image of a kind that is not read."""


class MissingReaderError(BrokenImageError):
    """An image whose reader is not installed; the message says how to install it."""


class TooLargeError(BrokenImageError):
    """More pixels than are decoded."""


class OutOfMemoryError(BrokenImageError):
    """More pixels than there is memory for now."""

    def __init__(self) -> None:
        super().__init__("too large for the memory there is")


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
    except MemoryError as error:
        raise OutOfMemoryError from error
    except ImportError as error:
        raise MissingReaderError(str(error)) from error
    except Exception as error:
        # Broken files make parsers raise almost anything: OSError, SyntaxError, struct.error, RuntimeError, EOFError.
        raise BrokenImageError(str(error) or type(error).__name__) from error


def reason(error: Exception) -> str:
    """Why an image could not be read, in a few words on one line."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((words or type(error).__name__).split())


def check_pixels(size: tuple[int, int], limit: int, encoded: int | None = None) -> None:
    """Raise TooLargeError for an image of that width and height with more than `limit` pixels.

    Raise it too for far more than so many `encoded` bytes can hold of a picture.
    """
    width, height = size
    if width * height > limit:
        raise TooLargeError(f"{width} x {height} pixels, above the limit of {limit}")
    if encoded is not None and width * height > max(CHEAP_PIXELS, encoded * MAX_PIXELS_PER_BYTE):
        raise TooLargeError(f"{width} x {height} pixels of {encoded} bytes, which hold no such picture")


def check_sides(height: int, width: int, min_side: int) -> None:
    """Raise BrokenImageError for a side below `min_side` pixels."""
    if min(height, width) < min_side:
        raise BrokenImageError(f"{width} x {height} pixels, below the limit of {min_side} a side")

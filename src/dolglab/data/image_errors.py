"""Errors of encoded images, with one base class, and the limits on what is decoded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

# Why a listed image is not read: its file was deleted, moved or renamed meanwhile.
VANISHED = "vanished after it was listed"
# Larger images are refused before they are decoded; Pillow's own limit for a decompression bomb.
MAX_PIXELS = 178_956_970
# Most pixels per encoded byte: empty scans have less than half of that. Images with fewer pixels than CHEAP_PIXELS are
# cheap in any case.
MAX_PIXELS_PER_BYTE, CHEAP_PIXELS = 20_000, 4_000_000


class BrokenImageError(ValueError):
    """Data that is not a usable image; the message is the reason."""


class NoImageError(BrokenImageError):
    """Data in an unknown format."""


class UnsupportedImageError(BrokenImageError):
    """A complete image of an unsupported kind."""


class MissingReaderError(BrokenImageError):
    """An image whose reader is not installed; the message says how to install it."""


class TooLargeError(BrokenImageError):
    """An image with more pixels than the limit."""


class OutOfMemoryError(BrokenImageError):
    """An image that does not fit into the available memory."""

    def __init__(self) -> None:
        super().__init__("too large for the available memory")


@contextmanager
def broken_image_errors() -> Iterator[None]:
    """Convert the errors of a parser to BrokenImageError, and suppress its warnings."""
    try:
        with warnings.catch_warnings():
            # Warnings about metadata, palettes and sizes are irrelevant: an image either decodes or raises.
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
        # Parsers raise almost anything for broken files: OSError, SyntaxError, struct.error, RuntimeError, EOFError.
        raise BrokenImageError(str(error) or type(error).__name__) from error


def reason(error: Exception) -> str:
    """Why an image could not be read, on one line."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((words or type(error).__name__).split())


def has_vanished(error: Exception) -> bool:
    """Whether a listed image was not read because its file does not exist any more.

    >>> has_vanished(FileNotFoundError()), has_vanished(PermissionError())
    (True, False)
    """
    return isinstance(error, FileNotFoundError | NotADirectoryError)


def check_pixels(size: tuple[int, int], limit: int, encoded: int | None = None) -> None:
    """Raise TooLargeError if an image of that (width, height) has more than `limit` pixels.

    Also raise it if the image has far more pixels than `encoded` bytes can represent.
    """
    width, height = size
    if width * height > limit:
        raise TooLargeError(f"{width} x {height} pixels, above the limit of {limit}")
    if encoded is not None and width * height > max(CHEAP_PIXELS, encoded * MAX_PIXELS_PER_BYTE):
        raise TooLargeError(f"{width} x {height} pixels in {encoded} bytes, too few for a real picture")


def check_sides(height: int, width: int, min_side: int) -> None:
    """Raise BrokenImageError for a side below `min_side` pixels."""
    if min(height, width) < min_side:
        raise BrokenImageError(f"{width} x {height} pixels, below the limit of {min_side} per side")

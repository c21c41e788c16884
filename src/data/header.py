"""What an encoded image says of itself, before a pixel is decoded."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from src.data.heic import is_heic, open_heic
from src.data.images import FORMATS, BrokenImageError, NoImageError, TooLargeError, formats


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

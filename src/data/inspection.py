"""What is wrong with an encoded image, or odd about it, found without training on it."""

from __future__ import annotations

import io
from typing import NamedTuple

import simplejpeg
from PIL import Image

from src.data.images import BrokenImageError, Reading, check_sides, decode, jpeg_size, reason
from src.data.orientation import image_orientation

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

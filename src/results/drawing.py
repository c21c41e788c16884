"""What pictures of results share: a font that is the same on every machine, and how they are encoded."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

MAX_BYTES = 600_000


def font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's own copy of DejaVu Sans: the machine's fonts, if it has any, would change the picture."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def ending(text: str, draw: ImageDraw.ImageDraw, size: int, width: int) -> str:
    """The longest end of `text` that fits `width` pixels, after an ellipsis where it is not the whole."""
    return _fitting([f"…{text[start:]}" if start else text for start in range(len(text) + 1)], draw, size, width)


def beginning(text: str, draw: ImageDraw.ImageDraw, size: int, width: int) -> str:
    """The longest beginning of `text` that fits `width` pixels, before an ellipsis where it is not the whole."""
    return _fitting([text, *(f"{text[:end]}…" for end in range(len(text) - 1, -1, -1))], draw, size, width)


def _fitting(texts: list[str], draw: ImageDraw.ImageDraw, size: int, width: int) -> str:
    used = font(size)
    return next((text for text in texts if draw.textlength(text, used) <= width), "")


def jpeg(image: Image.Image, most: int = MAX_BYTES) -> bytes:
    """`image` as a JPEG without chroma subsampling, which would bleed borders, in at most `most` bytes where it can."""
    data = b""
    for quality in (90, 80, 70, 60, 50, 40):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, subsampling=0)
        data = file.getvalue()
        if len(data) <= most:
            break
    return data

"""Photos that ask: read, cut to a box, shrunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.data.image_formats import BrokenImageError, Header, NoImageError, TooLargeError, read_header, reason
from dolglab.data.image_reading import crop_query, decode, decode_shrunk, shrink
from dolglab.errors import UserError
from dolglab.extraction.descriptor_store import fingerprint
from dolglab.extraction.extractor import Extractor
from dolglab.extraction.onnx_extractor import OnnxExtractor
from dolglab.library.photos import File
from dolglab.sharing.onnx_export import FILE
from dolglab.sharing.resolve import make_extractor, named


@dataclass(frozen=True)
class Ready:
    """A network that describes photos.

    Attributes:
        extractor: images to descriptors.
        title: what a person calls it.
        identity: what a library keeps: descriptors of another identity do not go with its own.
    """

    extractor: Extractor
    title: str
    identity: dict[str, Any]


def ready_model(
    source: str | None, scales: Sequence[float] = (1.0,), max_side: int = 1024, backend: str = "torch"
) -> Ready:
    """A network by what a person names (see `named`).

    Args:
        source: names it.
        scales: of each photo, whose descriptors are averaged.
        max_side: photos are shrunk to this many pixels before.
        backend: what runs the network, torch or onnx. It is no part of the identity: both give the same descriptors
            within 1e-4. An ONNX file that gives others, such as an int8 one, is named itself.

    Raises UserError as `named` and `make_extractor`.
    """
    found = named(source, FILE if backend == "onnx" else None)
    extractor = make_extractor(found, scales, backend)
    made_by = (
        extractor.session.about["fingerprint"] if isinstance(extractor, OnnxExtractor) else fingerprint(found.network)
    )
    identity = {
        "model": made_by,
        "title": found.title,
        "source": found.source,
        "dim": found.network.dim,
        "scales": [float(scale) for scale in scales],
        "max_side": max_side,
    }
    return Ready(extractor, found.title, identity)


Box = tuple[float, float, float, float]
# What is read, for a person.
KINDS = "JPEG, PNG, WebP, AVIF, JPEG 2000, TIFF, GIF or BMP"


class TooManyPixelsError(UserError):
    """A photo that nobody decodes."""


def photo_pixels(name: str, max_side: int, box: Box | None = None) -> NDArray[np.uint8]:
    """Pixels of a photo's file or address, as `query_pixels`. Raises UserError as that, and where it is not there."""
    try:
        data = File(name, 0, 0).read()
    except OSError as error:
        raise UserError(f"{name} cannot be read: {reason(error)}") from error
    return query_pixels(data, name, max_side, box)


def query_pixels(data: bytes, name: str, max_side: int, box: Box | None = None) -> NDArray[np.uint8]:
    """An encoded photo's pixels, (H, W, 3): inside the box x1, y1, x2, y2 (pixels) where one is given, then shrunk.

    Raises UserError for a photo that cannot be read and for a box that is not inside it.
    """
    try:
        if box is None:
            return decode_shrunk(data, max_side)
        pixels = decode(data)
    except BrokenImageError as error:
        raise UserError(f"{name} cannot be read: {reason(error)}") from error
    _check_box(box, pixels.shape[:2], name)
    return shrink(crop_query(pixels, np.array(box, np.float64), "pil"), max_side)


def photo_header(data: bytes) -> Header:
    """What an encoded photo says of itself, before a pixel is decoded.

    Raises UserError for what is no photo, and TooManyPixelsError for more than any is opened with.
    """
    if not data:
        raise UserError("the photo is empty: zero bytes")
    try:
        return read_header(data)
    except NoImageError:
        raise UserError(f"this is no photo that can be read: send a {KINDS} file") from None
    except TooLargeError:
        raise TooManyPixelsError("the photo has too many pixels") from None
    except BrokenImageError:
        raise UserError("the photo cannot be read: it is damaged") from None


def read_box(text: str) -> Box:
    """A box from "x1,y1,x2,y2". Raises UserError for anything else."""
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"a box is x1,y1,x2,y2 in pixels, not {text}") from None
    return x1, y1, x2, y2


def _check_box(box: Box, shape: tuple[int, ...], name: str) -> None:
    x1, y1, x2, y2 = box
    height, width = shape
    if x1 > x2 or y1 > y2:
        raise UserError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} ends before it begins: x1,y1 is its top left corner")
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height) or round(x2) <= round(x1) or round(y2) <= round(y1):
        raise UserError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} is not inside {name}, of {width} x {height} pixels")

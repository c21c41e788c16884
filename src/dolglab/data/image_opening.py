"""Images of every format except plain JPEG, opened as Pillow images with their intended colours."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from dolglab.data.colour import image_of, to_8_bits
from dolglab.data.image_errors import UnsupportedImageError, check_pixels
from dolglab.data.image_formats import (
    Jpeg2000Header,
    check_jpeg,
    is_heic,
    is_jxl,
    jpeg2000_header,
    jxl_size,
    open_heic,
    open_image,
)
from dolglab.data.tiff import EXTRA, is_tiff, open_tiff, read_samples

# Pillow's limit applies to the whole process.
_no_limit = threading.Lock()


class Opened(NamedTuple):
    """An image whose pixels are not decoded yet.

    Attributes:
        size: width and height in pixels, as stored.
        load: returns the image, decoded, or decoded when its pixels are accessed.
        turn: its EXIF orientation; None if that must be read after decoding.
    """

    size: tuple[int, int]
    load: Callable[[], Image.Image]
    turn: int | None = None


def open_picture(data: bytes, max_pixels: int, max_shrinking: int | None = None) -> Opened:
    """Open an image without decoding it.

    Args:
        max_pixels: an image with more pixels is refused.
        max_shrinking: the limit for JPEG 2000, which can be decoded at a smaller scale; None if it is not.

    Raises BrokenImageError, and the errors of a format's reader for bytes that are not a complete image.
    """
    if is_heic(data):
        heic = open_heic(data)
        # The decoder applies the orientation.
        opened = Opened(heic.size, heic.to_pillow, 1)
    elif is_jxl(data):
        opened = Opened(jxl_size(data), lambda: _load_jxl(data), 1)
    elif is_tiff(data):
        opened = _open_tiff(data)
    else:
        image = _open(data, max_shrinking is not None)
        opened = Opened(image.size, lambda: image)
        if isinstance(image, Jpeg2KImageFile):
            header = jpeg2000_header(data)
            image.info["icc_profile"] = header.profile
            if header.bits > 8:
                # Pillow turns white of more than 8 bits into black (13.0: it rounds up beyond the highest value).
                opened = Opened(image.size, lambda: _load_deep_jpeg2000(data, header), 1)
            elif max_shrinking is not None:
                max_pixels = max_shrinking
        elif image.format == "JPEG":
            check_jpeg(data, image.size, max_pixels)
    check_pixels(opened.size, max_pixels, len(data))
    return opened


def _open(data: bytes, large: bool) -> Image.Image:
    if not large:
        return open_image(data)
    with _no_limit:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return open_image(data)
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _open_tiff(data: bytes) -> Opened:
    picture = open_tiff(data)
    if picture.by_pillow:
        return Opened(picture.size, lambda: _load_page(data, picture.place or 0))
    return Opened(picture.size, lambda: _with_profile(read_samples(picture), picture.profile), picture.orientation)


def _load_page(data: bytes, place: int) -> Image.Image:
    image = _open(data, large=True)
    image.seek(place)
    return image


def _load_jxl(data: bytes) -> Image.Image:
    try:
        from imagecodecs import jpegxl_decode  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(f"JPEG XL: {EXTRA}") from None
    samples = jpegxl_decode(data, index=0)
    samples = samples[..., None] if samples.ndim == 2 else samples
    return image_of(to_8_bits(samples, 8 * samples.itemsize))


def _load_deep_jpeg2000(data: bytes, header: Jpeg2000Header) -> Image.Image:
    """Decode a JPEG 2000 of more than 8 bits."""
    # OpenCV would log notes on colour spaces.
    import cv2

    usual = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    cv2.utils.logging.setLogLevel(usual)
    if samples is None or samples.dtype.kind != "u":
        kind = f"{header.components} components of {header.bits} bits"
        raise UnsupportedImageError(f"a JPEG 2000 with {kind} is not supported, or it is damaged")
    levels = to_8_bits(samples if samples.ndim == 3 else samples[..., None], header.bits)
    if levels.shape[2] >= 3:
        # OpenCV's order is blue, green, red.
        levels[..., :3] = levels[..., 2::-1].copy()
    return _with_profile(image_of(levels), header.profile)


def _with_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    image.info["icc_profile"] = profile
    return image

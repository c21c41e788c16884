"""Images of every format but plain JPEG, opened as Pillow images of the colours that they mean."""

from __future__ import annotations

import threading

import cv2
import numpy as np
from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from dolglab.data.colour import image_of, to_8_bits
from dolglab.data.image_errors import UnsupportedImageError, check_pixels
from dolglab.data.image_formats import check_jpeg, is_heic, is_jxl, jpeg2000_header, jxl_size, open_heic, open_image
from dolglab.data.tiff import EXTRA, is_tiff, open_tiff, read_samples

# Pillow's limit is the whole process's.
_no_limit = threading.Lock()


def open_picture(data: bytes, max_pixels: int, max_shrinking: int | None = None) -> tuple[Image.Image, int | None]:
    """An image, decoded or not yet, and its EXIF orientation; None where that is to be asked for once it is decoded.

    Args:
        max_pixels: more are refused.
        max_shrinking: that limit of a format that is decoded smaller than it is, JPEG 2000; None for none.

    Raises BrokenImageError, and whatever a format's reader raises for bytes that are no whole image.
    """
    if is_heic(data):
        heic = open_heic(data)
        check_pixels(heic.size, max_pixels, len(data))
        # The format itself is turned when it is decoded.
        return heic.to_pillow(), 1
    if is_jxl(data):
        check_pixels(jxl_size(data), max_pixels, len(data))
        return _open_jxl(data), 1
    if is_tiff(data):
        return _open_tiff(data, max_pixels)
    image = _open(data, max_shrinking is not None)
    deep = False
    if isinstance(image, Jpeg2KImageFile):
        header = jpeg2000_header(data)
        # Pillow turns white of more than 8 bits into black (13.0: it rounds up beyond the highest value).
        deep = header.bits > 8
        if header.profile is not None:
            image.info["icc_profile"] = header.profile
    shrinks = isinstance(image, Jpeg2KImageFile) and not deep
    check_pixels(image.size, (shrinks and max_shrinking) or max_pixels, len(data))
    if image.format == "JPEG":
        check_jpeg(data, image.size, max_pixels)
    return (_open_deep_jpeg2000(data, image) if deep else image), None


def _open(data: bytes, large: bool) -> Image.Image:
    if not large:
        return open_image(data)
    with _no_limit:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return open_image(data)
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _open_tiff(data: bytes, max_pixels: int) -> tuple[Image.Image, int | None]:
    picture = open_tiff(data)
    check_pixels(picture.size, max_pixels, len(data))
    if picture.by_pillow:
        image = _open(data, large=True)
        image.seek(picture.place or 0)
        return image, None
    image = read_samples(picture)
    if picture.profile is not None:
        image.info["icc_profile"] = picture.profile
    return image, picture.orientation


def _open_jxl(data: bytes) -> Image.Image:
    try:
        from imagecodecs import jpegxl_decode  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(f"JPEG XL: {EXTRA}") from None
    samples = jpegxl_decode(data, index=0)
    samples = samples[..., None] if samples.ndim == 2 else samples
    return image_of(to_8_bits(samples, 8 * samples.itemsize))


def _open_deep_jpeg2000(data: bytes, image: Image.Image) -> Image.Image:
    """A JPEG 2000 of more than 8 bits."""
    header = jpeg2000_header(data)
    # It would write notes on colour spaces.
    usual = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    cv2.utils.logging.setLogLevel(usual)
    if samples is None or samples.dtype.kind != "u":
        kind = f"{header.components} components of {header.bits} bits"
        raise UnsupportedImageError(f"a JPEG 2000 with {kind} is not read, or it is damaged")
    levels = to_8_bits(samples if samples.ndim == 3 else samples[..., None], header.bits)
    if levels.shape[2] >= 3:
        # OpenCV's order is blue, green, red.
        levels[..., :3] = levels[..., 2::-1].copy()
    read = image_of(levels)
    read.info = image.info
    return read

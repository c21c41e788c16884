from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dolglab.data.image_reading import Reading
from dolglab.data.preparation.scan import Finding, inspect

Encode = Callable[..., bytes]
Photo = Callable[..., NDArray[np.uint8]]
READING = Reading(min_side=16)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sideways(image: Image.Image) -> bytes:
    exif = image.getexif()
    exif[0x0112] = 6
    return saved(image, "JPEG", exif=exif)


def test_an_intact_jpeg_has_no_finding(photo: Photo, encode: Encode) -> None:
    assert inspect(encode(photo(40, 50)), READING) is None
    assert inspect(encode(photo(40, 50), mode="L"), READING) is None


def test_unusable_images_have_a_reason(photo: Photo, encode: Encode) -> None:
    whole = encode(photo(400, 500), quality=95)
    for data, why in [
        (b"", "zero bytes"),
        (b"<html>404</html>", "not an image"),
        (whole[: len(whole) // 2], "Premature end"),
        (encode(photo(12, 50)), "50 x 12 pixels, below the limit of 16 per side"),
        (encode(photo(12, 50), "PNG"), "50 x 12 pixels, below the limit of 16 per side"),
    ]:
        finding = inspect(data, READING)
        assert finding is not None
        assert not finding.used
        assert why in finding.reason


def test_unusual_images_are_used_and_named(photo: Photo, encode: Encode) -> None:
    image = Image.fromarray(photo(40, 50))
    deep = Image.fromarray(np.full((40, 50), 40_000, np.uint16))
    moving = saved(image, "GIF", save_all=True, append_images=[image.rotate(9)])
    for data, why in [
        (encode(photo(40, 50), mode="CMYK"), "CMYK, converted to RGB"),
        (saved(image, "WEBP"), "WEBP, read anyway"),
        (saved(deep, "PNG"), "PNG, read anyway, 16 bits, reduced to the upper 8"),
        (moving, "GIF, read anyway, animated, only its first frame is used"),
        (sideways(image), "turned upright (EXIF orientation 6)"),
    ]:
        assert inspect(data, READING) == Finding(why, used=True)
    assert inspect(sideways(image), Reading("ignore")) is None


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9, 0.99])
def test_a_jpeg_truncated_anywhere_is_found(photo: Photo, encode: Encode, cut: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    data = encode(noise, quality=95)
    finding = inspect(data[: int(cut * len(data))], READING)
    assert finding is not None
    assert not finding.used


def test_a_page_without_tags_is_ignored(photo: Photo) -> None:
    data = saved(Image.fromarray(photo(40, 50)), "TIFF")
    first = int.from_bytes(data[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    # A second page without tags, on which Pillow fails.
    spoilt = data[:end] + len(data).to_bytes(4, "little") + data[end + 4 :] + bytes(6)
    assert inspect(spoilt, READING) == Finding("TIFF, read anyway", used=True)

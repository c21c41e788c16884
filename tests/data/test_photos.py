"""Parts of photos, and of scans that are too large for full decoding."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dolglab.data.image_errors import BrokenImageError
from dolglab.data.photos import check_size, query_pixels
from dolglab.errors import UserError

SIDES = 512, 328


def encode(image: Image.Image, kind: str, orientation: int) -> bytes:
    held, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    image.save(held, kind, **({} if orientation == 1 else {"exif": exif}))
    return held.getvalue()


@pytest.mark.parametrize(
    ("kind", "orientation"),
    [("JPEG", 1), ("JPEG", 6), ("PNG", 1), ("TIFF", 1), ("TIFF", 6), ("WEBP", 8), ("JPEG2000", 1)],
)
@pytest.mark.parametrize("part", [(0, 0, 1, 1), (0.25, 0.125, 0.75, 0.875), (0.5, 0.5, 1, 1)])
def test_a_box_on_a_scan_gives_that_part(
    shared_data: Path, kind: str, orientation: int, part: tuple[float, float, float, float]
) -> None:
    """Parts of a photo with four times as many pixels as the limit for full decoding."""
    photo = Image.open(shared_data / "provence" / "opera" / "000.jpg").convert("RGB")
    assert photo.size == SIDES
    data = encode(photo, kind, orientation)
    width, height = SIDES if orientation == 1 else SIDES[::-1]
    left, top, right, bottom = part
    box = round(left * width), round(top * height), round(right * width), round(bottom * height)
    whole = query_pixels(data, "a scan", 64, box)
    shrunk = query_pixels(data, "a scan", 64, box, max_pixels=width * height // 4)
    np.testing.assert_allclose(shrunk.shape, whole.shape, atol=1)
    same = cv2.resize(shrunk, whole.shape[1::-1])
    assert np.abs(same.astype(int) - whole).mean() < 8
    # Another part shows something else.
    assert np.abs(same[::-1, ::-1].astype(int) - whole).mean() > 20


def test_a_box_of_a_scan_keeps_a_pixel_and_stays_inside(shared_data: Path) -> None:
    data = (shared_data / "provence" / "opera" / "000.jpg").read_bytes()
    for box in ((511, 0, 512, 328), (0, 327, 512, 328), (0, 0, 1, 1)):
        assert min(query_pixels(data, "a scan", 64, box, max_pixels=1000).shape[:2]) == 1
    for box in ((0, 0, 513, 328), (5, 5, 4, 9), (-1, 0, 5, 5)):
        with pytest.raises(UserError, match="box"):
            query_pixels(data, "a scan", 64, box, max_pixels=1000)


@pytest.mark.parametrize("size", [(1, 1), (12, 12), (15, 600), (1, 9999)])
def test_icons_and_short_strips_are_too_small(size: tuple[int, int]) -> None:
    for height, width in (size, size[::-1]):
        with pytest.raises(BrokenImageError, match=f"{width} x {height}"):
            check_size(height, width)


@pytest.mark.parametrize("size", [(16, 16), (4000, 3), (40, 60_000)])
def test_panoramas_are_not_too_small(size: tuple[int, int]) -> None:
    check_size(*size)
    check_size(*size[::-1])

"""Images above the pixel limit, which is lowered for small files; decoding at a smaller scale; HEIC."""

from __future__ import annotations

import io
import sys
import tracemalloc
from functools import partial

import cv2
import numpy as np
import pytest
from PIL import Image

from dolglab.data import image_reading
from dolglab.data.image_errors import BrokenImageError, TooLargeError
from dolglab.data.image_formats import read_header
from dolglab.data.image_reading import Reading, decode, shrink
from icc_profiles import rgb_profile

WIDTH, HEIGHT = 320, 200
LIMIT = 30_000
SCALED = Reading(decoding="scaled")

decode_shrunk = partial(image_reading.decode_shrunk, max_pixels=LIMIT)


def encoded(kind: str, **options: object) -> bytes:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([x * 255 // WIDTH, y * 255 // HEIGHT, (x + y) % 256 // 2], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", "TIFF", "PNG", "WEBP"])
def test_a_scan_is_the_shrunk_image(kind: str) -> None:
    data = encoded(kind)
    with pytest.raises(TooLargeError, match=r"320 x 200 .*30000"):
        decode(data, max_pixels=LIMIT)
    found = decode_shrunk(data, 64)
    wanted = shrink(decode(data), 64)
    assert found.shape == wanted.shape == (40, 64, 3)
    # The format's own reduction filters otherwise at most by a few grey levels.
    assert np.abs(found.astype(int) - wanted).mean() < 2
    assert np.abs(found.astype(int) - wanted).max() < 24
    np.testing.assert_array_equal(image_reading.decode_shrunk(data, 64), wanted)


def test_a_jpeg_is_shrunk_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def seen(pixels: np.ndarray, max_side: int) -> np.ndarray:
        decoded.append(pixels.shape)
        return shrink(pixels, max_side)

    monkeypatch.setattr(image_reading, "shrink", seen)
    assert decode_shrunk(encoded("JPEG"), 32).shape == (20, 32, 3)
    assert decoded == [(50, 80, 3)]


@pytest.mark.parametrize(("max_side", "scale"), [(159, 2), (64, 2), (20, 4), (10, 8)])
def test_a_large_jpeg_is_decoded_at_half_its_size_or_less(max_side: int, scale: int) -> None:
    """Decoded by OpenCV at that scale."""
    flag = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}[scale]
    data = encoded("JPEG", quality=95)
    reduced = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    assert reduced is not None
    wanted = shrink(reduced[..., ::-1].copy(), max_side)
    for limit in (LIMIT, HEIGHT * WIDTH):
        found = decode_shrunk(data, max_side, SCALED, max_pixels=limit)
        assert found.shape == wanted.shape
        assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(("kind", "max_side"), [("JPEG", 160), ("JPEG", 300), ("JPEG", 400), ("PNG", 20), ("TIFF", 20)])
def test_other_formats_and_smaller_images_are_decoded_at_full_size(kind: str, max_side: int) -> None:
    data = encoded(kind)
    found = image_reading.decode_shrunk(data, max_side, SCALED)
    np.testing.assert_array_equal(found, shrink(decode(data), max_side))


def test_a_jpeg_decoded_at_a_scale_has_its_colours_and_orientation() -> None:
    exif, profile = Image.Exif(), rgb_profile("ProPhoto")
    exif[0x0112] = 6
    data = encoded("JPEG", quality=95, exif=exif, icc_profile=profile)
    wanted = shrink(decode(data), 64)
    found = decode_shrunk(data, 64, SCALED)
    assert found.shape == wanted.shape == (64, 40, 3)
    assert np.abs(found.astype(int) - wanted).mean() < 2
    assert np.abs(decode_shrunk(encoded("JPEG", quality=95), 64, SCALED).astype(int) - found.swapaxes(0, 1)).mean() > 5


def test_a_scan_decoded_at_a_scale_needs_little_memory() -> None:
    width, height = 6000, 5000
    file = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(file, "JPEG")
    tracemalloc.start()
    try:
        found = image_reading.decode_shrunk(file.getvalue(), 256, SCALED)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.shape == (213, 256, 3)
    assert peak < 3 * width * height / 8


def test_a_scan_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "TIFF", "PNG"):
        assert decode_shrunk(encoded(kind, exif=exif), 64).shape == (64, 40, 3)
        stored = (40, 64, 3) if kind != "TIFF" else (64, 40, 3)  # Pillow applies the orientation of TIFFs itself.
        assert decode_shrunk(encoded(kind, exif=exif), 64, Reading("ignore")).shape == stored


def test_too_large_and_broken_scans_are_refused() -> None:
    with pytest.raises(BrokenImageError, match=r".+"):
        decode_shrunk(encoded("TIFF")[: HEIGHT * WIDTH], 64)
    with pytest.raises(TooLargeError, match=r"320 x 200 .*50000"):
        decode_shrunk(encoded("PNG"), 64, max_whole=50_000)


def test_pillows_own_limit_is_unchanged() -> None:
    before = Image.MAX_IMAGE_PIXELS
    decode_shrunk(encoded("PNG"), 64)
    assert before == Image.MAX_IMAGE_PIXELS


def test_heic_is_read_if_its_reader_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    pixels = np.full((40, 60, 3), (200, 30, 90), np.uint8)
    pixels[:20] = 10
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(file, quality=90)
    found = decode(file.getvalue())
    assert read_header(file.getvalue()) == (".heic", 60, 40)
    assert found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).mean() < 4
    with pytest.raises(BrokenImageError, match=r".+"):
        decode(file.getvalue()[:200])
    with pytest.raises(BrokenImageError, match=r"60 x 40 .*100"):
        decode(file.getvalue(), max_pixels=100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BrokenImageError, match="pip install"):
        decode(file.getvalue())

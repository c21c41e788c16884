from __future__ import annotations

import contextlib
import io
import math
import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from dolglab.data import image_reading as images
from dolglab.data.crops import Box, CropRange, random_box
from dolglab.data.image_errors import BrokenImageError, TooLargeError, reason
from dolglab.data.image_reading import Reading, crop_query, decode, decode_crop, resize, shrink

Encode = Callable[..., bytes]
Photo = Callable[..., NDArray[np.uint8]]
Pixels = NDArray[np.uint8]

few = settings(max_examples=60, derandomize=True, deadline=None)


def by_pillow(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def crop_of(data: bytes, size: int = 16, seed: int = 0) -> Pixels:
    return decode_crop(data, CropRange(), size, np.random.default_rng(seed))


def test_full_jpeg_decode_equals_pillow(photo: Photo, encode: Encode) -> None:
    for subsampling in (0, 2):
        data = encode(photo(121, 203), quality=85, subsampling=subsampling)
        difference = np.abs(decode(data).astype(int) - by_pillow(data))
        assert difference.max() <= 4
        assert difference.mean() < 0.2


def test_full_decode_never_scales(photo: Photo, encode: Encode) -> None:
    assert decode(encode(photo(1001, 1203))).shape == (1001, 1203, 3)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("PNG", "L"),
        ("PNG", "1"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
        ("PNG", "LA"),
        ("GIF", "P"),
        ("BMP", "RGB"),
        ("TIFF", "CMYK"),
        ("WEBP", "RGB"),
    ],
)
def test_every_mode_equals_pillows_rgb(photo: Photo, encode: Encode, kind: str, mode: str) -> None:
    data = encode(photo(33, 47), kind, mode)
    pixels = decode(data)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), by_pillow(data), atol=4)
    assert crop_of(data).shape == (16, 16, 3)


def test_palette_with_transparent_entries_decodes_without_a_warning(photo: Photo, encode: Encode) -> None:
    data = encode(photo(20, 20), "PNG", "P", transparency=bytes(range(20)))
    assert decode(data).shape == (20, 20, 3)


def test_16_bit_png_keeps_its_high_byte(encode: Encode) -> None:
    grey = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    pixels = decode(encode(grey, "PNG"))
    np.testing.assert_array_equal(pixels, np.repeat((grey // 256).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_used(photo: Photo, encode: Encode, kind: str) -> None:
    frames = [Image.fromarray(photo(24, 24, seed)) for seed in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(photo(24, 24, 0), kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_allclose(decode(data).astype(int), by_pillow(data), atol=0)
    np.testing.assert_allclose(decode(data).astype(int), photo(24, 24, 0), atol=40)


@pytest.mark.parametrize("shape", [(1, 1), (10, 20000), (20000, 10), (1, 300), (2, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_unusual_shapes_are_decoded_and_cropped(encode: Encode, shape: tuple[int, int], kind: str) -> None:
    data = encode(np.full((*shape, 3), 77, np.uint8), kind)
    assert decode(data).shape == (*shape, 3)
    for seed in range(5):
        crop = crop_of(data, 32, seed)
        assert crop.shape == (32, 32, 3)
        np.testing.assert_allclose(crop, 77, atol=2)


def test_extension_and_trailing_bytes_do_not_matter(photo: Photo, encode: Encode) -> None:
    data = encode(photo(40, 50))
    np.testing.assert_allclose(decode(data + b"trailing text").astype(int), by_pillow(data), atol=4)


def test_a_jpeg_that_libjpeg_turbo_refuses_falls_back_to_pillow(photo: Photo, encode: Encode) -> None:
    data = encode(photo(40, 50))
    stray = data.replace(b"\xff\xdb", b"\x00" * 9 + b"\xff\xdb", 1)
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(stray)
    np.testing.assert_array_equal(decode(stray), by_pillow(stray))
    assert crop_of(stray).shape == (16, 16, 3)


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: data[:200]])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_truncated_files_are_broken(photo: Photo, encode: Encode, kind: str, spoil: Any) -> None:
    data = spoil(encode(photo(90, 120), kind))
    for read in (decode, crop_of):
        with pytest.raises(BrokenImageError) as error:
            read(data)
        assert 0 < len(reason(error.value)) < 100
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "zero bytes"),
        (b"<html>404 Not Found</html>", "not an image"),
        (b"\xff\xd8", "not an image"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "."),
    ],
)
def test_data_that_is_not_an_image_is_reported(data: bytes, why: str) -> None:
    for read in (decode, crop_of):
        with pytest.raises(BrokenImageError, match=why):
            read(data)


def test_headers_above_the_limit_are_refused_before_decoding(photo: Photo, encode: Encode) -> None:
    jpeg = bytearray(encode(photo(16, 16)))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60000, 60000)
    png = bytearray(encode(photo(16, 16), "PNG"))
    png[16:24] = struct.pack(">II", 12000, 15000)
    for data in (bytes(jpeg), bytes(png)):
        for read in (decode, crop_of):
            with pytest.raises(BrokenImageError):
                read(data)
    with pytest.raises(TooLargeError, match="60000 x 60000"):
        decode(bytes(jpeg))


@settings(max_examples=150, derandomize=True, deadline=None)
@given(kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]), data=st.data())
def test_damaged_bytes_decode_or_are_broken_and_nothing_else(kind: str, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)).save(buffer, kind)
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, min(len(damaged), 400) - 1))] = data.draw(st.integers(0, 255))
    for read in (decode, crop_of):
        with contextlib.suppress(BrokenImageError):
            pixels = read(bytes(damaged))
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3


def test_crops_are_decoded_at_a_smaller_scale_if_possible(
    photo: Photo, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(photo(768, 1024))
    shapes = []
    library = simplejpeg.decode_jpeg

    def watched(*arguments: Any, **options: Any) -> Pixels:
        pixels = library(*arguments, **options)
        shapes.append(pixels.shape[:2])
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", watched)
    for side, size in ((1.0, 512), (1.0, 384), (1.0, 224), (1.0, 64), (0.25, 224), (0.25, 100)):
        decode_crop(data, CropRange((side, side), (1, 1)), size, np.random.default_rng(0))
    assert shapes == [(768, 1024), (384, 512), (288, 384), (96, 128), (768, 1024), (192, 256)]


@pytest.mark.parametrize("side", [16, 64])
def test_a_crop_outlives_the_next_image(photo: Photo, encode: Encode, side: int) -> None:
    """Including one that is not resized, since images share a decoding buffer."""
    whole = CropRange((1.0, 1.0), (1.0, 1.0))
    rng = np.random.default_rng(0)
    crop = decode_crop(encode(photo(64, 64)), whole, side, rng)
    before = crop.copy()
    for other in (photo(200, 100), photo(64, 64)):
        decode_crop(encode(255 - other), whole, side, rng)
    np.testing.assert_array_equal(crop, before)


def test_scaled_crops_are_close_to_crops_of_the_full_decode(photo: Photo, encode: Encode) -> None:
    data = encode(photo(600, 803), quality=95)
    full = by_pillow(data)
    for seed in range(12):
        crop = decode_crop(data, CropRange(), 96, np.random.default_rng(seed))
        box = random_box(600, 803, CropRange(), np.random.default_rng(seed))
        inside = full[box.top : box.top + box.height, box.left : box.left + box.width]
        expected = np.asarray(Image.fromarray(inside).resize((96, 96), Image.Resampling.BILINEAR))
        difference = np.abs(crop.astype(int) - expected)
        assert difference.mean() < 3
        assert np.quantile(difference, 0.99) < 12


def test_a_decoded_crop_is_never_smaller_than_requested(photo: Photo, encode: Encode) -> None:
    data = encode(photo(479, 641))
    for seed in range(40):
        size = 8 * (seed % 20 + 1)
        box = random_box(479, 641, CropRange(), np.random.default_rng(seed))
        pixels = simplejpeg.decode_jpeg(
            data,
            "RGB",
            min_height=min(479, math.ceil(479 * size / box.height)),
            min_width=min(641, math.ceil(641 * size / box.width)),
            min_factor=2,
        )
        height, width = images._cut(pixels, box, (479, 641)).shape[:2]
        assert height >= min(size, box.height)
        assert width >= min(size, box.width)


@few
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    low=st.floats(0.01, 1),
    high=st.floats(0.01, 1),
    seed=st.integers(0, 2**32),
)
def test_random_boxes_lie_inside_with_area_and_ratio_in_range(
    height: int, width: int, low: float, high: float, seed: int
) -> None:
    crop = CropRange((min(low, high), max(low, high)), (3 / 4, 4 / 3))
    box = random_box(height, width, crop, np.random.default_rng(seed))
    assert 0 <= box.top <= box.top + box.height <= height
    assert 0 <= box.left <= box.left + box.width <= width
    assert min(box.height, box.width) >= 1
    if min(height, width) > 100 and 1 / 1.3 < width / height < 1.3 and low * height * width > 1e4:
        slack = 1 / box.height + 1 / box.width
        assert 3 / 4 * (1 - slack) <= box.width / box.height <= 4 / 3 * (1 + slack)
        # The fallback after ten tries that do not fit reaches from border to border.
        largest = box.height == height or box.width == width
        assert largest or box.height * box.width <= height * width * (crop.area[1] + 0.01)
        assert box.height * box.width >= height * width * crop.area[0] * (1 - slack) or crop.area[0] > 0.7


def test_random_boxes_spread_over_area_ratio_and_place() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(600, 800, CropRange((0.1, 0.4), (0.5, 2)), rng) for _ in range(4000)])
    top, left, height, width = boxes.T
    area = height * width / (600 * 800)
    aspect = np.log(width / height) / math.log(2)
    for values, low, high in ((area, 0.1, 0.4), (aspect, -1, 1)):
        uniform = np.linspace(low, high, 11)[1:-1]
        np.testing.assert_allclose(np.quantile(values, np.arange(1, 10) / 10), uniform, atol=0.05 * (high - low))
    np.testing.assert_allclose(np.mean(top / (600 - height)), 0.5, atol=0.02)
    np.testing.assert_allclose(np.mean(left / (800 - width)), 0.5, atol=0.02)


def test_without_a_fitting_box_the_largest_centred_one_is_used() -> None:
    whole = CropRange((1.0, 1.0), (3 / 4, 4 / 3))
    assert random_box(100, 1000, whole, np.random.default_rng(0)) == Box(0, 433, 100, 133)
    assert random_box(1000, 90, whole, np.random.default_rng(0)) == Box(440, 0, 120, 90)
    assert random_box(1, 1, CropRange(), np.random.default_rng(0)) == Box(0, 0, 1, 1)


def test_query_crop_pil_is_pillows_crop(photo: Photo) -> None:
    pixels = photo(50, 70)
    for box in ((3.4, 5.6, 40.5, 30.49), (0.5, 1.5, 2.5, 3.5), (0, 0, 70, 50)):
        expected = np.asarray(Image.fromarray(pixels).crop(box))
        np.testing.assert_array_equal(crop_query(pixels, np.array(box, float), "pil"), expected)
        assert crop_query(pixels, np.array(box, float), "pil").flags.c_contiguous


def test_query_crops_are_truncated_disabled_or_clipped(photo: Photo) -> None:
    pixels = photo(50, 70)
    box = np.array([3.9, 5.9, 40.9, 30.9])
    np.testing.assert_array_equal(crop_query(pixels, box, "trunc"), pixels[5:30, 3:40])
    np.testing.assert_array_equal(crop_query(pixels, box, "none"), pixels)
    np.testing.assert_array_equal(crop_query(pixels, np.full(4, np.nan), "pil"), pixels)
    np.testing.assert_array_equal(crop_query(pixels, np.array([-5.0, -2, 200, 90]), "trunc"), pixels)


@pytest.mark.parametrize("box", [[80, 10, 90, 20], [-20, -20, -10, -10], [30, 30, 30.2, 40]])
def test_a_query_box_without_pixels_is_an_error(photo: Photo, box: list[float]) -> None:
    with pytest.raises(BrokenImageError, match=str(float(box[0]))):
        crop_query(photo(50, 70), np.array(box, float), "pil")


def test_shrink_reduces_the_longer_side_by_area(photo: Photo) -> None:
    pixels = photo(40, 100)
    assert shrink(pixels, None) is pixels
    assert shrink(pixels, 100) is pixels
    means = pixels.reshape(20, 2, 50, 2, 3).astype(float).mean((1, 3))
    np.testing.assert_allclose(shrink(pixels, 50), means, atol=0.5)
    assert shrink(np.zeros((1, 900, 3), np.uint8), 100).shape == (1, 100, 3)


def test_resize_uses_areas_if_both_sides_shrink_much(photo: Photo) -> None:
    pixels = photo(90, 120)
    np.testing.assert_array_equal(resize(pixels, 30), cv2.resize(pixels, (30, 30), interpolation=cv2.INTER_AREA))
    np.testing.assert_array_equal(resize(pixels, 50), cv2.resize(pixels, (50, 50)))


def test_reasons_are_one_short_line() -> None:
    assert reason(FileNotFoundError(2, "No such file or directory", "a.jpg")) == "No such file or directory"
    assert reason(BrokenImageError("two\n lines")) == "two lines"
    assert reason(OSError()) == "OSError"


def turned(pixels: Pixels, orientation: int, kind: str = "JPEG") -> bytes:
    """Pixels from a camera held sideways, with the orientation tag."""
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=95, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright_like_pillow(photo: Photo, orientation: int, kind: str) -> None:
    data = turned(photo(60, 90), orientation, kind)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    found = decode(data)
    assert found.shape == expected.shape
    assert found.flags.c_contiguous
    assert np.abs(found - expected).max() <= 4
    if kind != "TIFF":  # Pillow applies the orientation of TIFFs itself.
        assert decode(data, Reading("ignore")).shape == (60, 90, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_crops_of_turned_photographs_are_crops_of_upright_ones(
    photo: Photo, encode: Encode, orientation: int, kind: str
) -> None:
    data = turned(photo(320, 448), orientation, kind)
    straight = encode(decode(data), kind, quality=95)
    for seed in range(8):
        difference = crop_of(data, 32, seed).astype(int) - crop_of(straight, 32, seed)
        assert np.abs(difference).mean() < 1


def test_damaged_metadata_do_not_matter(photo: Photo) -> None:
    data = turned(photo(40, 50), 6)
    place = data.index(b"Exif\0\0") + 6
    spoilt = data[:place] + b"\xff" * 12 + data[place + 12 :]
    assert decode(spoilt).shape == (40, 50, 3)


def test_tiny_images_are_broken_if_a_least_side_is_required(photo: Photo, encode: Encode) -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG"):
        data = encode(photo(15, 200), kind)
        assert decode_crop(data, CropRange(), 8, rng).shape == (8, 8, 3)
        with pytest.raises(BrokenImageError, match=r"200 x 15 .*16"):
            decode_crop(data, CropRange(), 8, rng, Reading(min_side=16))

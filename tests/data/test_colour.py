"""Colours follow a picture's profile, compared with the formulas of the spaces."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from dolglab.data.crops import CropRange
from dolglab.data.image_reading import Reading, decode, decode_crop, decode_shrunk
from dolglab.data.photos import query_pixels
from icc_profiles import grey_profile, press_profile, rgb_profile, srgb_of_lab, values_in
from picture_encodings import grey, master, saved

IGNORE = Reading(colour="ignore")
WIDE = ("Display P3", "Adobe RGB", "ProPhoto", "linear")
# Mean error in levels of 8 bits in another space.
LOST = 1.5


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return master()


def holding(values: NDArray[np.uint8], profile: bytes, kind: str) -> bytes:
    """A file in that format with the profile."""
    if kind == "HEIC":
        buffer = io.BytesIO()
        pillow_heif.from_bytes("RGB", values.shape[1::-1], values.tobytes()).save(
            buffer, quality=-1, icc_profile=profile, icc_profile_type="prof"
        )
        return buffer.getvalue()
    if kind == "TIFF 16":
        buffer = io.BytesIO()
        samples = np.moveaxis(values.astype(np.uint16) * 257, 2, 0)
        tifffile.imwrite(buffer, samples, photometric="rgb", planarconfig="separate", iccprofile=profile)
        return buffer.getvalue()
    if kind == "JP2":
        plain = imagecodecs.jpeg2k_encode(values, level=0, codecformat="jp2", reversible=True)
        start = plain.index(b"colr") - 4
        length = int.from_bytes(plain[start : start + 4])
        box = b"colr\2\0\0" + profile
        head = plain.index(b"jp2h") - 4
        longer = int.from_bytes(plain[head : head + 4]) + len(box) + 4 - length
        changed = plain[:start] + (len(box) + 4).to_bytes(4) + box + plain[start + length :]
        return bytes(changed[:head] + longer.to_bytes(4) + changed[head + 4 :])
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
    return saved(Image.fromarray(values), kind, icc_profile=profile, **options.get(kind, {}))


@pytest.mark.parametrize("space", WIDE)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "TIFF 16", "JP2", "HEIC"])
def test_a_profile_is_applied_or_ignored(picture: NDArray[np.uint8], space: str, kind: str) -> None:
    values = values_in(space, picture)
    data = holding(values, rgb_profile(space), kind)
    loss = 4.0 if kind in ("AVIF", "HEIC") else LOST
    # A linear space has few levels for dark colours.
    assert np.abs(decode(data).astype(int) - picture).mean() <= (2 * loss if space == "linear" else loss)
    assert np.abs(decode(data, IGNORE).astype(int) - values).mean() <= loss
    assert np.abs(values.astype(int) - picture).mean() > 5


def test_every_way_of_reading_converts_colours(picture: NDArray[np.uint8]) -> None:
    data = holding(values_in("ProPhoto", picture), rgb_profile("ProPhoto"), "JPEG")
    height, width = picture.shape[:2]
    half = np.asarray(Image.fromarray(picture).resize((width // 2, height // 2), Image.Resampling.BOX)).astype(int)
    for pixels in (
        decode_shrunk(data, width // 2),
        decode_shrunk(data, width // 2, max_pixels=100),
        query_pixels(data, "a photo", width // 2),
        query_pixels(data, "a photo", width // 2, (0, 0, width, height)),
    ):
        assert np.abs(pixels - half).mean() <= 3
    crop = CropRange(area=(1.0, 1.0), ratio=(width / height, width / height))
    read = decode_crop(data, crop, 60, np.random.default_rng(0)).mean((0, 1))
    assert np.abs(read - picture.mean((0, 1))).max() <= 3
    ignored = decode_crop(data, crop, 60, np.random.default_rng(0), IGNORE).mean((0, 1))
    assert np.abs(ignored - picture.mean((0, 1))).max() > 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_marked_as_srgb_are_unchanged(picture: NDArray[np.uint8], kind: str) -> None:
    data = holding(picture, rgb_profile("sRGB"), kind)
    np.testing.assert_array_equal(decode(data), decode(data, IGNORE))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_profiles_are_applied(picture: NDArray[np.uint8], kind: str) -> None:
    levels = grey(picture)
    light = np.where(levels / 255 <= 0.04045, levels / 255 / 12.92, ((levels / 255 + 0.055) / 1.055) ** 2.4)
    stored = np.rint(255 * light ** (1 / 1.8)).astype(np.uint8)
    options = {"quality": 100} if kind == "JPEG" else {}
    data = saved(Image.fromarray(stored), kind, icc_profile=grey_profile(1.8), **options)
    assert np.abs(decode(data).astype(int) - levels[..., None]).mean() <= LOST
    assert np.abs(decode(data, IGNORE).astype(int) - stored[..., None]).mean() <= LOST


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(kind: str) -> None:
    profile, corners = press_profile()
    # Squares of 16 pixels: JPEG has blocks of 8.
    inks = np.repeat(np.repeat(np.array(list(corners), np.uint8).reshape(4, 4, 4), 16, 0), 16, 1)
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = saved(Image.fromarray(inks, "CMYK"), kind, icc_profile=profile, **options)
    shown = np.array([srgb_of_lab(lab) for lab in corners.values()]).reshape(4, 4, 3)
    assert np.abs(decode(data)[8::16, 8::16] - shown).max() <= 4
    naive = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")).astype(int)
    assert np.abs(decode(data, IGNORE) - naive).max() <= 4


@pytest.mark.parametrize("profile", [b"no profile", rgb_profile("Adobe RGB")[:300], grey_profile(1.8), b""])
def test_broken_and_mismatched_profiles_are_ignored(picture: NDArray[np.uint8], profile: bytes) -> None:
    inks = Image.fromarray(picture).convert("CMYK")
    for image in (Image.fromarray(picture), inks):
        data = saved(image, "JPEG", quality=95, icc_profile=profile)
        np.testing.assert_array_equal(decode(data), decode(data, IGNORE))


@pytest.mark.parametrize("kind", ["RGBA", "LA", "PNG palette", "GIF", "PNG 16", "RGB with a colour", "TIFF", "WEBP"])
def test_transparent_pixels_are_white(picture: NDArray[np.uint8], kind: str) -> None:
    solid = np.zeros(picture.shape[:2], np.uint8)
    solid[20:90, 30:120] = 255
    rgba = Image.fromarray(np.dstack([picture, solid]))
    if kind == "PNG 16":
        levels = grey(picture).astype(np.uint16) * 257
        levels[solid == 0] = 12345
        data = saved(Image.fromarray(levels), "PNG", transparency=12345)
        base = np.repeat(grey(picture)[..., None], 3, 2)
    elif kind == "RGB with a colour":
        hidden = picture.copy()
        hidden[solid == 0] = (1, 2, 3)
        data, base = saved(Image.fromarray(hidden), "PNG", transparency=(1, 2, 3)), picture
    elif kind in ("PNG palette", "GIF"):
        indexed = Image.fromarray(picture).quantize(255)
        values = np.array(indexed)
        values[solid == 0] = 255
        cut_out = Image.fromarray(values, "P")
        cut_out.putpalette([*(indexed.getpalette() or []), 0, 0, 0][:768])
        data = saved(cut_out, "GIF" if kind == "GIF" else "PNG", transparency=255)
        base = np.asarray(indexed.convert("RGB"))
    else:
        image = rgba.convert(kind) if kind in ("RGBA", "LA") else rgba
        data = saved(image, "PNG" if kind in ("RGBA", "LA") else kind, **({"lossless": True} if kind == "WEBP" else {}))
        base = np.asarray(image.convert("RGB"))
    expected = np.where(solid[..., None] > 0, base, 255)
    np.testing.assert_array_equal(decode(data), expected)


def test_half_transparent_pixels_are_blended_with_white(picture: NDArray[np.uint8]) -> None:
    half = Image.fromarray(np.dstack([picture, np.full(picture.shape[:2], 128, np.uint8)]))
    expected = picture * (128 / 255) + 255 * (127 / 255)
    assert np.abs(decode(saved(half, "PNG")) - expected).max() <= 1
    # Premultiplied colours.
    held = np.dstack([np.rint(picture * (128 / 255)).astype(np.uint8), np.full(picture.shape[:2], 128, np.uint8)])
    for samples in (held, held.astype(np.uint16) * 257):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, samples, photometric="rgb", extrasamples=["assocalpha"])
        assert np.abs(decode(buffer.getvalue()) - expected).max() <= 3


def exif_of(index: str) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "camera"
    exif.get_ifd(ExifTags.IFD.Exif)[0xA005] = {1: index}
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_adobe_rgb_named_in_exif_is_converted(picture: NDArray[np.uint8], kind: str) -> None:
    values = Image.fromarray(values_in("Adobe RGB", picture))
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    named = saved(values, kind, exif=exif_of("R03"), **options)
    assert np.abs(decode(named).astype(int) - picture).mean() <= LOST
    assert np.abs(decode_shrunk(named, max(picture.shape)).astype(int) - picture).mean() <= LOST
    assert np.abs(decode(named, IGNORE).astype(int) - np.asarray(values)).mean() <= LOST
    # A profile in the file takes precedence; otherwise sRGB.
    both = saved(Image.fromarray(picture), kind, exif=exif_of("R03"), icc_profile=rgb_profile("sRGB"), **options)
    usual = saved(Image.fromarray(picture), kind, exif=exif_of("R98"), **options)
    for data in (both, usual):
        np.testing.assert_array_equal(decode(data), decode(data, IGNORE))


def test_broken_exif_leaves_the_picture_unchanged(picture: NDArray[np.uint8]) -> None:
    exif = exif_of("R03").tobytes()
    for length in range(6, len(exif), 7):
        for kind in ("JPEG", "WEBP", "PNG"):
            data = saved(Image.fromarray(picture), kind, exif=exif[:length])
            assert decode(data).shape == picture.shape


def png_with(values: NDArray[np.uint8], *chunks: tuple[bytes, tuple[float, ...]]) -> bytes:
    info = PngInfo()
    for name, numbers in chunks:
        info.add(name, b"".join(round(number * 100_000).to_bytes(4) for number in numbers))
    return saved(Image.fromarray(values), "PNG", pnginfo=info)


P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
REC709 = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)


@pytest.mark.parametrize(
    ("space", "chunks"),
    [
        ("linear", [(b"gAMA", (1.0,))]),
        ("linear", [(b"gAMA", (1.0,)), (b"cHRM", REC709)]),
        ("Display P3", [(b"gAMA", (0.45455,)), (b"cHRM", P3)]),
        ("Display P3", [(b"cHRM", P3)]),
    ],
)
def test_colours_described_in_a_png_are_converted(
    picture: NDArray[np.uint8], space: str, chunks: list[tuple[bytes, tuple[float, ...]]]
) -> None:
    values = values_in(space, picture)
    data = png_with(values, *chunks)
    assert np.abs(decode(data).astype(int) - picture).mean() <= (2 * LOST if space == "linear" else LOST)
    np.testing.assert_array_equal(decode(data, IGNORE), values)
    half = picture.reshape(picture.shape[0] // 2, 2, picture.shape[1] // 2, 2, 3).mean((1, 3))
    reduced = decode_shrunk(data, picture.shape[1] // 2, max_pixels=100)
    assert np.abs(reduced - half).mean() <= np.abs(decode_shrunk(data, picture.shape[1] // 2) - half).mean() + 1


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"gAMA", (0.45455,))],
        [(b"gAMA", (0.45455,)), (b"cHRM", REC709)],
        [(b"gAMA", (0.0,))],
        [(b"gAMA", (0.001,))],
        [(b"cHRM", (0.3,) * 8)],
        [(b"cHRM", (0.0,) * 8)],
        [(b"gAMA", (1.0,)), (b"sRGB", ())],
    ],
)
def test_a_png_of_srgb_or_with_invalid_chunks_is_unchanged(
    picture: NDArray[np.uint8], chunks: list[tuple[bytes, tuple[float, ...]]]
) -> None:
    info = PngInfo()
    for name, numbers in chunks:
        info.add(name, b"".join(round(n * 100_000).to_bytes(4) for n in numbers) if numbers else b"\0")
    np.testing.assert_array_equal(decode(saved(Image.fromarray(picture), "PNG", pnginfo=info)), picture)

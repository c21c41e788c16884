"""Conversion of samples to the pixels to show: 8 bits, ICC profiles converted to sRGB, transparency on white."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dolglab.contracts import Colour
from dolglab.data.colour_spaces import stated_profile
from dolglab.data.image_errors import UnsupportedImageError

Pixels = UInt8[np.ndarray, "_ _ 3"]

# As in most programs: white stays white, and black stays black.
INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
# A profile whose colours differ from sRGB by at most this many levels counts as sRGB.
SAME = 2
# The colour spaces of Pillow's modes, as named in profiles.
SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


def to_8_bits(samples: NDArray[np.generic], bits: int) -> NDArray[np.uint8]:
    """Convert samples to 8 bits: the upper 8 of `bits` for integers, the range 0 to 1 for floats.

    >>> to_8_bits(np.array([0, 2048, 4095], np.uint16), 12)
    array([  0, 128, 255], dtype=uint8)

    Raises UnsupportedImageError for other samples, whose white is unknown.
    """
    if samples.dtype == np.bool_:
        return np.where(samples, 255, 0).astype(np.uint8)
    if samples.dtype.kind == "u":
        if bits < 8:
            return (samples.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)
        return np.right_shift(samples, np.array(bits - 8, samples.dtype)).astype(np.uint8)
    if samples.dtype.kind != "f":
        raise UnsupportedImageError(f"samples of {samples.dtype} are not supported")
    low, high = float(samples.min()), float(samples.max())
    if not 0 <= low <= high <= 1:
        raise UnsupportedImageError(f"float samples from {low:g} to {high:g}, outside 0 to 1, are not supported")
    return np.rint(samples.astype(np.float64) * 255).astype(np.uint8)


def image_of(levels: NDArray[np.uint8]) -> Image.Image:
    """An image of 8-bit grey or RGB, with or without alpha, (H, W, 1 to 4)."""
    mode = ("L", "LA", "RGB", "RGBA")[levels.shape[2] - 1]
    return Image.fromarray(np.ascontiguousarray(levels[..., 0] if mode == "L" else levels), mode)


def rgb_of(image: Image.Image, colour: Colour = "srgb") -> tuple[Pixels, bytes | None]:
    """An image of any mode as RGB, and the profile that `to_srgb` still has to convert, or None."""
    # Before its EXIF is read: in a PNG that may follow the pixels, and damaged pixels would look like damaged EXIF.
    image.load()
    profile = image.info.get("icc_profile") or stated_profile(image) if colour == "srgb" else None
    if image.mode == "LAB":
        return np.array(lab_transform().apply(image)), None
    if image.mode == "CMYK":
        transform = transform_of(profile, "CMYK") if profile else None
        return np.array(image.convert("RGB") if transform is None else transform.apply(image)), None
    if image.mode.startswith("I"):
        # PNG's 16 bits of grey; the transparent grey is one of these values.
        samples = np.asarray(image).clip(0, 65535)
        grey = np.repeat(to_8_bits(samples.astype(np.uint16), 16)[..., None], 3, axis=2)
        hidden = image.info.get("transparency")
        return (grey if hidden is None else np.where(samples[..., None] == hidden, np.uint8(255), grey)), profile
    if image.has_transparency_data:
        rgba = np.array(image.convert("RGBA"))
        return on_white(rgba[..., :3], rgba[..., 3]), profile
    return np.array(image.convert("RGB"), dtype=np.uint8), profile


def to_srgb(pixels: Pixels, profile: bytes) -> Pixels:
    """Convert pixels of a profile's RGB, or of its grey in three equal channels, to sRGB, (H, W, 3).

    A profile that is broken, or of another colour space, is ignored.
    """
    if (transform := transform_of(profile, "RGB")) is not None:
        return np.array(transform.apply(Image.fromarray(pixels)))
    transform = transform_of(profile, "L")
    if transform is not None and (pixels[..., :1] == pixels).all():
        return np.array(transform.apply(Image.fromarray(np.ascontiguousarray(pixels[..., 0]))))
    return pixels


@lru_cache(maxsize=64)
def transform_of(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform of images of a mode from their profile to sRGB; None if not needed, or if the profile is broken."""
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != SPACES[mode]:  # pyright: ignore[reportAttributeAccessIssue]
            return None
        transform = _transform(source, mode)
        tried = _samples(mode)
        if tried is not None:
            shown = np.asarray(transform.apply(tried)).astype(int)
            if np.abs(shown - np.asarray(tried.convert("RGB"))).max() <= SAME:
                return None
        return transform
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


@lru_cache(maxsize=1)
def lab_transform() -> ImageCms.ImageCmsTransform:
    """The transform of images of mode LAB, with a D50 white as in every profile, to sRGB."""
    return _transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")


def on_white(colours: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> Pixels:
    """Colours, (H, W, 3), with alpha, (H, W), on a white background."""
    if alpha.min() == 255:
        return colours
    share = alpha[..., None].astype(np.uint16)
    return ((colours * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)


def _transform(source: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, srgb, mode, "RGB", INTENT, flags=FLAGS)


def _samples(mode: str) -> Image.Image | None:
    """An image with colours from all over the space, for the modes of sRGB; None for others."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if mode == "RGB":
        levels = np.linspace(0, 255, 9).astype(np.uint8)
        return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))
    return None

"""TIFF files: the choice of the page that is the picture, and samples of other than 8 bits."""

from __future__ import annotations

import io
import logging
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC, TiffPage

from dolglab.data.colour import image_of, to_8_bits
from dolglab.data.image_errors import BrokenImageError, UnsupportedImageError

# Warnings about damaged tags are irrelevant: a picture either decodes or raises.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False

HEADERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Only so many pages are examined.
MAX_PAGES = 1000
# Bits of NewSubfileType: a smaller copy of another page, and a mask for another page.
REDUCED, MASK = 1, 4
# A page is a smaller copy of one with the same aspect ratio if its sides are at most this share.
THUMBNAIL = 0.5
# Compressions that Pillow decodes correctly, and colours for samples of up to 8 bits.
PILLOW_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000})
PILLOW_COLOURS = frozenset({0, 1, 2, 3, 5, 6, 8})
# Compressions that work without imagecodecs: none, and those of Python's standard library.
PLAIN_COMPRESSIONS = frozenset({1, 8, 32773, 32946, 34925})
PLAIN_BITS, FLOAT_PREDICTOR = frozenset({1, 8, 16, 32, 64}), 3
LAB = (PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB)
# Samples per pixel, including colours.
MAX_SAMPLES = 8
# Kinds of alpha: premultiplied into the colours, and separate.
PREMULTIPLIED, SEPARATE = 1, 2
# The tag of the highest sample; a 16-bit picture whose samples are all below DARKEST has fewer bits.
MAX_SAMPLE_VALUE, DARKEST = 281, 1 << 12
EXTRA = "pip install 'dolglab[formats]'"
# Channels of a colour, by photometric interpretation.
CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3}


class TiffPicture(NamedTuple):
    """The page of a TIFF that is the picture.

    Attributes:
        page: the page.
        place: its position among the file's own pages; None for a page that another page refers to.
        further: number of other pages that are neither smaller copies nor masks.
    """

    page: TiffPage
    place: int | None
    further: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as stored."""
        return int(self.page.imagewidth), int(self.page.imagelength)

    @property
    def by_pillow(self) -> bool:
        """Whether Pillow reads its samples correctly."""
        page = self.page
        if self.place is None or (page.parent.byteorder == ">" and page.parent.is_bigtiff):
            return False
        if page.compression not in PILLOW_COMPRESSIONS or page.sampleformat not in (1, 4):
            return False
        if page.bitspersample <= 8:
            return page.photometric in PILLOW_COLOURS
        # Pillow keeps the upper 8 bits, which some scanners do not use.
        deep = {1: (1,), 2: (3, 4), 5: (4,)}.get(int(page.photometric), ())
        alike = page.bitspersample == 16 and page.samplesperpixel in deep and page.planarconfig == 1
        return alike and page.compression not in PLAIN_COMPRESSIONS and not _has_imagecodecs()

    @property
    def deep(self) -> bool:
        """Whether it has more than 8 bits per sample."""
        return self.page.bitspersample > 8

    @property
    def profile(self) -> bytes | None:
        """Its ICC profile."""
        tag = self.page.tags.get(34675)
        return None if tag is None else bytes(tag.value)

    @property
    def orientation(self) -> int:
        """The EXIF orientation, 1 to 8."""
        tag = self.page.tags.get(274)
        return tag.value if tag is not None and tag.value in range(1, 9) else 1


def is_tiff(data: bytes) -> bool:
    """Whether the data begins like a TIFF or BigTIFF file."""
    return data[:4] in HEADERS


def open_tiff(data: bytes) -> TiffPicture:
    """The page of a TIFF that is its picture: the first one, unless it is a smaller copy of another.

    Raises UnsupportedImageError for data that is not a picture, and tifffile's errors for incomplete files.
    """
    file = tifffile.TiffFile(io.BytesIO(data))
    pages = [page for _, page in zip(range(MAX_PAGES), file.pages, strict=False) if isinstance(page, TiffPage)]
    pages = [page for page in pages if page.imagewidth and page.imagelength]
    # Cameras store the picture as a sub-page of its thumbnail.
    below = [page for parent in pages for page in parent.pages or () if isinstance(page, TiffPage)]
    whole = [page for page in pages if not page.subfiletype & (REDUCED | MASK)]
    whole = whole or [page for page in below if not page.subfiletype & (REDUCED | MASK)] or pages
    if not whole:
        raise BrokenImageError("a TIFF without a page")
    larger = [page for page in whole if _is_thumbnail(whole[0], page)]
    first = max(larger, key=lambda page: page.imagewidth, default=whole[0])
    place = next((place for place, page in enumerate(pages) if page is first), None)
    if first.imagedepth > 1 or first.samplesperpixel > MAX_SAMPLES:
        depth = f"{first.samplesperpixel} samples per pixel" if first.imagedepth == 1 else f"{first.imagedepth} planes"
        raise UnsupportedImageError(f"a TIFF with {depth} is not supported")
    further = sum(page is not first and not _is_thumbnail(page, first) for page in whole)
    return TiffPicture(first, place, further)


def read_samples(picture: TiffPicture) -> Image.Image:
    """The samples of a page, 8 bits each, as an image of mode L, LA, RGB, RGBA, CMYK or LAB.

    Raises UnsupportedImageError for unsupported samples, ImportError if imagecodecs is needed, and tifffile's errors
    for broken ones.
    """
    page = picture.page
    channels = CHANNELS.get(int(page.photometric))
    # A JPEG inside is decoded to RGB.
    if channels is None or (page.photometric == PHOTOMETRIC.YCBCR and page.compression != COMPRESSION.JPEG):
        raise UnsupportedImageError(f"a TIFF with {_name(page.photometric)} colours is not supported")
    if page.compression not in PLAIN_COMPRESSIONS and not _has_imagecodecs():
        raise ImportError(f"a TIFF with {_name(page.compression)} compression: {EXTRA}")
    if (page.bitspersample not in PLAIN_BITS or page.predictor == FLOAT_PREDICTOR) and not _has_imagecodecs():
        raise ImportError(f"a TIFF with packed samples of {page.bitspersample} bits: {EXTRA}")
    samples = page.asarray().reshape(page.shape)
    # Planes become channels.
    samples = np.moveaxis(samples, page.axes.index("S"), -1) if "S" in page.axes else samples[..., None]
    if page.photometric in LAB:
        return Image.merge("LAB", [Image.fromarray(plane) for plane in _lab(samples, page)])
    if page.photometric == PHOTOMETRIC.PALETTE:
        samples, bits = np.moveaxis(np.asarray(page.colormap), 0, -1)[samples[..., 0]], 16
    else:
        bits = _bits(samples, page)
    levels = to_8_bits(samples, bits)
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        levels[..., 0] = 255 - levels[..., 0]
    if page.photometric == PHOTOMETRIC.SEPARATED:
        return Image.fromarray(np.ascontiguousarray(levels[..., :4]), "CMYK")
    # The first extra sample may be alpha, premultiplied or not.
    extra = int(page.extrasamples[0]) if page.extrasamples else 0
    image = image_of(levels[..., : channels + (extra in (PREMULTIPLIED, SEPARATE))])
    if extra == PREMULTIPLIED:
        image = Image.frombytes("RGBa", image.size, image.convert("RGBA").tobytes()).convert("RGBA")
    return image


def _is_thumbnail(first: TiffPage, other: TiffPage) -> bool:
    """Whether a page without that mark is a smaller copy of another one with the same aspect ratio."""
    height, width = first.imagelength, first.imagewidth
    scale = width / max(1, other.imagewidth)
    return scale <= THUMBNAIL + 1 / max(1, other.imagewidth) and abs(scale * other.imagelength - height) <= max(
        1, 0.02 * height
    )


def _bits(samples: NDArray[np.generic], page: TiffPage) -> int:
    """How many bits the samples use: cameras and scanners write 10 to 14 bits into 16.

    Few state this with the tag of the highest value. For others, the highest sample decides: no real picture is so dark
    that it stays below a sixteenth of white.
    """
    if samples.dtype != np.uint16 or page.bitspersample != 16:
        return page.bitspersample
    stated = page.tags.get(MAX_SAMPLE_VALUE)
    highest = int(np.max(stated.value)) if stated is not None else 0
    if not 0 < int(samples.max()) <= highest:
        highest = int(samples.max())
        if highest >= DARKEST:
            return 16
    return max(8, highest.bit_length())


def _lab(samples: NDArray[np.generic], page: TiffPage) -> list[NDArray[np.uint8]]:
    """L* (0 to 100), a* and b* (-128 to 127) in the encoding of Pillow's mode LAB."""
    if samples.dtype.kind == "f":
        lightness, a, b = (samples[..., i].astype(np.float64) for i in range(3))
    elif page.photometric == PHOTOMETRIC.ICCLAB:
        # Unsigned; with 16 bits, L* = 100 is 65280.
        top, one = (255, 1) if page.bitspersample == 8 else (65280, 256)
        lightness = samples[..., 0].astype(np.float64) * (100 / top)
        a, b = (samples[..., i].astype(np.float64) / one - 128 for i in (1, 2))
    else:
        bits = page.bitspersample
        lightness = samples[..., 0].astype(f"u{bits // 8}") * (100 / ((1 << bits) - 1))
        a, b = (samples[..., i].astype(f"i{bits // 8}") / (1 << (bits - 8)) for i in (1, 2))
    planes = (lightness * 2.55, a + 128, b + 128)
    return [np.rint(plane).clip(0, 255).astype(np.uint8) for plane in planes]


def _has_imagecodecs() -> bool:
    try:
        import imagecodecs  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return True


def _name(value: int) -> str:
    """The name of a photometric interpretation or a compression."""
    return value.name if isinstance(value, COMPRESSION | PHOTOMETRIC) else str(value)

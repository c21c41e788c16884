"""Bytes to uint8 RGB pixels: whole images exactly, training crops by the shortest way."""

from __future__ import annotations

import io
import math
import threading
import warnings
from functools import cache
from typing import Any, NamedTuple, cast, get_args

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dolglab.contracts import Crop, Orientation
from dolglab.errors import UserError

# The EXIF tag, and the mark before its block: files without it are not parsed.
TAG = 0x0112
MARK = b"Exif\0\0"
# An EXIF block stands in a JPEG's first segments, of 64 kB at most each; profiles may stand before it.
SEARCHED = 262_144


def jpeg_orientation(data: bytes) -> int:
    """What a JPEG states, 1 (upright) to 8; 1 where it states nothing, or nothing that can be read."""
    if data.find(MARK, 0, SEARCHED) < 0:
        return 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image_orientation(image)
    except Exception:  # Broken metadata make Pillow raise nearly anything; the pixels may be whole.
        return 1


def image_orientation(image: Image.Image) -> int:
    """What an open image states, 1 to 8."""
    try:
        stated = image.getexif().get(TAG, 1)
    except Exception:  # As above.
        return 1
    return stated if stated in range(1, 9) else 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A view of (H, W, 3) pixels as they are to be seen; orientations from 5 exchange height and width."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # Of what is then left: a mirror image, upside down, or both.
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]


BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
MISSING = "HEIC: pip install -e '.[heic]'"


def is_heic(data: bytes) -> bool:
    """Whether bytes are a HEIC file."""
    # The first of its brands may be one that AVIF has too.
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS and b"avif" not in data[12:64]


def open_heic(data: bytes) -> Any:
    """A HEIC file, not yet decoded: `size` is width and height. Raises ImportError, and ValueError for a broken one."""
    try:
        from pillow_heif import open_heif
    except ImportError:
        raise ImportError(MISSING) from None
    return open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)


def heic_pixels(image: Any) -> NDArray[np.uint8]:
    """Pixels of an open HEIC file, (H, W, 3) RGB, upright: the format itself is turned when it is decoded."""
    return np.array(image.to_pillow().convert("RGB"), dtype=np.uint8)


# Above this an image is refused before it is decoded; Pillow's own limit for a decompression bomb.
MAX_PIXELS = 178_956_970

# What is opened, and what such files are called. Pillow knows more, some of which start other programs (EPS). MPO is a
# JPEG to its opener.
FORMATS = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "JPEG2000": ".jp2",
    "BMP": ".bmp",
    "DIB": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tif",
}

# Images with more bytes of pixels than this are decoded into memory of their own.
MAX_SCRATCH = 64_000_000

Pixels = UInt8[np.ndarray, "_ _ 3"]


class BrokenImageError(ValueError):
    """Bytes that are no usable image; the message is the reason."""


class NoImageError(BrokenImageError):
    """Bytes of no format that is read."""


class TooLargeError(BrokenImageError):
    """More pixels than are decoded."""


class _Scratch(threading.local):
    """Memory that one decoded image after another is written to: fresh pages cost a quarter of the decoding."""

    def __init__(self) -> None:
        self.memory = np.empty(0, np.uint8)

    def __call__(self, size: int) -> NDArray[np.uint8] | None:
        """At least `size` bytes, overwritten by the thread's next image; None for one that is too large."""
        if size > MAX_SCRATCH:
            return None
        if size > self.memory.size:
            self.memory = np.empty(size, np.uint8)
        return self.memory


_scratch = _Scratch()


class Box(NamedTuple):
    """A crop in whole pixels."""

    top: int
    left: int
    height: int
    width: int


class CropRange(NamedTuple):
    """What a random crop may be: its share of the image's area, and its width over height."""

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


class Reading(NamedTuple):
    """How training images are read: turned upright or as they are stored, and the least side in pixels."""

    orientation: Orientation = "exif"
    min_side: int = 1


READ_ALL = Reading()


def checked_reading(orientation: object, min_side: object) -> Reading:
    """Both as one. Raises UserError for an orientation there is not, or a side that is no whole number above 0."""
    if orientation not in get_args(Orientation):
        raise UserError(f"orientation must be {' or '.join(get_args(Orientation))}, not {orientation}")
    if not isinstance(min_side, int) or min_side < 1:
        raise UserError(f"min_side must be a whole number above 0, not {min_side}")
    return Reading(cast("Orientation", orientation), min_side)


def decode(data: bytes, orientation: Orientation = "exif") -> Pixels:
    """The whole image at full resolution, (H, W, 3) RGB, upright or as it is stored. Raises BrokenImageError."""
    if jpeg_size(data) is None:
        return np.ascontiguousarray(_decode_with_pillow(data, orientation))
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        # The strict decoder refuses files that Pillow can still read whole.
        return np.ascontiguousarray(_decode_with_pillow(data, orientation))
    return np.ascontiguousarray(upright(pixels, _stated(data, orientation)))


def pixels_of(image: Image.Image, orientation: Orientation = "exif") -> Pixels:
    """An open image's pixels, (H, W, 3) RGB, upright or as they are stored; may be a view.

    Raises BrokenImageError for too many pixels, and what Pillow raises for broken files.
    """
    _check_pixels(*image.size)
    pixels = rgb(image)
    # Asked after loading, since TIFF images are turned by it.
    return upright(pixels, image_orientation(image)) if orientation == "exif" else pixels


def decode_crop(
    data: bytes, crop: CropRange, size: int, rng: np.random.Generator, reading: Reading = READ_ALL
) -> Pixels:
    """A random crop, resized to (size, size, 3) RGB.

    A JPEG is decoded at the smallest of libjpeg's scales (1, 1/2, 3/8, 1/4, 1/8) at which the crop is still
    no smaller than `size`. Raises BrokenImageError, also for an image with a side below `reading.min_side`.
    """
    shape = jpeg_size(data)
    if shape is None:
        pixels = _decode_with_pillow(data, reading.orientation)
        height, width = pixels.shape[:2]
        check_sides(height, width, reading.min_side)
        return resize(_cut(pixels, random_box(height, width, crop, rng)), size)
    check_sides(*shape, reading.min_side)
    turn = _stated(data, reading.orientation)
    height, width = shape[::-1] if turn >= 5 else shape
    box = random_box(height, width, crop, rng)
    least = min(height, math.ceil(height * size / box.height)), min(width, math.ceil(width * size / box.width))
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            "RGB",
            min_height=least[turn >= 5],
            min_width=least[turn < 5],
            # Between a half and the whole libjpeg-turbo has no SIMD: slower than decoding the whole.
            min_factor=2,
            # Less exact by about a grey level, which training does not see.
            fastdct=True,
            fastupsample=True,
            buffer=_scratch(3 * height * width),
        )
        pixels = upright(pixels, turn)
    except ValueError:
        pixels = _decode_with_pillow(data, reading.orientation)
    return resize(_cut(pixels, _scaled(box, (height, width), pixels.shape)), size)


def random_box(height: int, width: int, crop: CropRange, rng: np.random.Generator) -> Box:
    """A random crop of an image of that size: area and log aspect ratio uniform, then the place uniform.

    After ten tries that do not fit, the largest centred crop within the range of ratios.
    """
    low, high = (math.log(ratio) for ratio in crop.ratio)
    for area, ratio, top, left in rng.random((10, 4)):
        target = height * width * (crop.area[0] + area * (crop.area[1] - crop.area[0]))
        aspect = math.exp(low + ratio * (high - low))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(top * (height - h + 1)), int(left * (width - w + 1)), h, w)
    w = min(width, max(1, round(height * crop.ratio[1])))
    h = min(height, max(1, round(width / crop.ratio[0])))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def crop_query(pixels: Pixels, box: NDArray[np.float64], crop: Crop) -> Pixels:
    """The query inside its box x1, y1, x2, y2 (pixels; NaN for none).

    "pil" rounds the coordinates as the benchmark's example does, "trunc" cuts their fractions off as the
    released DOLG code does, "none" leaves the image whole. Raises BrokenImageError for a box outside it.
    """
    if crop == "none" or np.isnan(box).any():
        return pixels
    x1, y1, x2, y2 = (max(0, round(v) if crop == "pil" else int(v)) for v in box.tolist())
    inside = pixels[y1:y2, x1:x2]
    if not inside.size:
        raise BrokenImageError(f"the query box {box.tolist()} has no pixel inside the image")
    return np.ascontiguousarray(inside)


def shrink(pixels: Pixels, max_side: int | None) -> Pixels:
    """Pixels with their longer side brought down to `max_side`, by area; smaller images as they are."""
    longer = max(pixels.shape[:2])
    if max_side is None or longer <= max_side:
        return pixels
    height, width = (max(1, round(side * max_side / longer)) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


@cache
def formats() -> tuple[str, ...]:
    """The formats that are opened, as far as this Pillow can."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def reason(error: Exception) -> str:
    """Why an image could not be read, in a few words on one line."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((words or type(error).__name__).split())


def resize(pixels: Pixels, size: int) -> Pixels:
    """Pixels as a square of `size`: linear, or by area where both sides shrink to less than half."""
    far = min(pixels.shape[:2]) > 2 * size
    # OpenCV takes rows with gaps between them, and refuses mirrored or turned ones.
    if pixels.strides[1:] != (3, 1) or pixels.strides[0] < 0:
        pixels = np.ascontiguousarray(pixels)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if far else cv2.INTER_LINEAR)


def _cut(pixels: Pixels, box: Box) -> Pixels:
    return pixels[box.top : box.top + box.height, box.left : box.left + box.width]


def _scaled(box: Box, old: tuple[int, int], new: tuple[int, ...]) -> Box:
    """The box after its image went from `old` to `new` height and width; it stays inside."""
    top, height = _scaled_span(box.top, box.height, old[0], new[0])
    left, width = _scaled_span(box.left, box.width, old[1], new[1])
    return Box(top, left, height, width)


def _scaled_span(start: int, length: int, old: int, new: int) -> tuple[int, int]:
    scaled = max(1, round(length * new / old))
    return min(round(start * new / old), new - scaled), scaled


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that libjpeg-turbo can give as RGB; None for everything else."""
    if data[:2] != b"\xff\xd8":
        return None
    try:
        height, width, colourspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colourspace in ("CMYK", "YCCK"):
        return None
    _check_pixels(int(width), int(height))
    return int(height), int(width)


def _decode_with_pillow(data: bytes, orientation: Orientation) -> Pixels:
    """Everything else: other formats, CMYK, 16 bits, palettes, the first frame of an animation; may be a view."""
    if not data:
        raise BrokenImageError("zero bytes")
    if is_heic(data):
        return _decode_heic(data)
    try:
        with warnings.catch_warnings():
            # Notes on metadata, palettes and sizes: what matters here either decodes or raises.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=formats()) as image:
                return pixels_of(image, orientation)
    except BrokenImageError:
        raise
    except UnidentifiedImageError as error:
        raise NoImageError("not an image") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError("too many pixels") from error
    except Exception as error:
        # Broken files make Pillow's parsers raise almost anything: OSError, SyntaxError, struct.error.
        raise BrokenImageError(str(error) or type(error).__name__) from error


def _decode_heic(data: bytes) -> Pixels:
    try:
        image = open_heic(data)
        _check_pixels(*image.size)
        return heic_pixels(image)
    except BrokenImageError:
        raise
    except Exception as error:
        # As above; libheif's errors are ValueError, RuntimeError, EOFError.
        raise BrokenImageError(str(error) or type(error).__name__) from error


def rgb(image: Image.Image) -> Pixels:
    """An image of any mode as RGB."""
    if image.mode.startswith("I"):
        return _from_16_bits(np.asarray(image))
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _from_16_bits(grey: NDArray[np.integer]) -> Pixels:
    return np.repeat((np.clip(grey, 0, 65535) >> 8).astype(np.uint8)[..., None], 3, axis=2)


def _stated(data: bytes, orientation: Orientation) -> int:
    return jpeg_orientation(data) if orientation == "exif" else 1


def check_sides(height: int, width: int, least: int) -> None:
    if min(height, width) < least:
        raise BrokenImageError(f"{width} x {height} pixels, below the limit of {least} a side")


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise TooLargeError(f"{width} x {height} pixels, above the limit of {MAX_PIXELS}")

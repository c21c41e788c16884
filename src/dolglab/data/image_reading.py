"""Bytes to uint8 RGB pixels: whole images exactly, training crops and shrunk images by the shortest way."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from typing import NamedTuple, cast, get_args

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from dolglab.contracts import Crop, Orientation
from dolglab.data.image_formats import (
    MAX_PIXELS,
    BrokenImageError,
    Pixels,
    TooLargeError,
    broken_image_errors,
    check_pixels,
    check_sides,
    image_orientation,
    is_heic,
    jpeg_orientation,
    jpeg_size,
    open_heic,
    open_image,
)
from dolglab.errors import UserError

# Images with more bytes of pixels than this are decoded into memory of their own.
MAX_SCRATCH = 64_000_000
# Pixels above which even `decode_shrunk` decodes nothing: of formats that shrink by themselves, and of others, which
# take up to 14 bytes a pixel for a moment.
MAX_SHRINKING, MAX_WHOLE = 600_000_000, 400_000_000
# Modes that Pillow shrinks as they are.
REDUCIBLE = ("L", "RGB", "RGBA", "CMYK")

# Pillow's limit is the whole process's: one large image at a time.
_one_large_image = threading.Lock()


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


def decode(data: bytes, orientation: Orientation = "exif", max_pixels: int = MAX_PIXELS) -> Pixels:
    """The whole image at full resolution, (H, W, 3) RGB, upright or as it is stored. Raises BrokenImageError."""
    if jpeg_size(data, max_pixels) is not None:
        # The strict decoder refuses files that Pillow can still read whole.
        with suppress(ValueError):
            pixels = simplejpeg.decode_jpeg(data, "RGB")
            return np.ascontiguousarray(upright(pixels, jpeg_orientation(data, orientation)))
    return np.ascontiguousarray(_decode_with_pillow(data, orientation, max_pixels))


def decode_shrunk(
    data: bytes,
    max_side: int,
    orientation: Orientation = "exif",
    max_pixels: int = MAX_PIXELS,
    max_whole: int = MAX_WHOLE,
) -> Pixels:
    """An image with its longer side brought down to `max_side`, (H, W, 3) RGB, upright or as it is stored.

    Up to `max_pixels` exactly `shrink(decode(data))`. Above, one at a time: JPEG and JPEG 2000, up to `MAX_SHRINKING`
    pixels, at the smallest of their own scales that is no smaller than twice `max_side`; others, up to `max_whole`
    pixels, whole and then shrunk. Raises BrokenImageError.
    """
    try:
        return shrink(decode(data, orientation, max_pixels), max_side)
    except TooLargeError:
        if is_heic(data):
            raise
        with _one_large_image:
            usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return shrink(_decode_large(data, 2 * max_side, orientation, max_whole), max_side)
            finally:
                Image.MAX_IMAGE_PIXELS = usual


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
        return resize(_cut(pixels, random_box(height, width, crop, rng), (height, width)), size)
    check_sides(*shape, reading.min_side)
    turn = jpeg_orientation(data, reading.orientation)
    height, width = shape[::-1] if turn >= 5 else shape
    box = random_box(height, width, crop, rng)
    needed = min(height, math.ceil(height * size / box.height)), min(width, math.ceil(width * size / box.width))
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            "RGB",
            min_height=needed[turn >= 5],
            min_width=needed[turn < 5],
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
    return resize(_cut(pixels, box, (height, width)), size)


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


def resize(pixels: Pixels, size: int) -> Pixels:
    """Pixels as a square of `size`: linear, or by area where both sides shrink to less than half."""
    far = min(pixels.shape[:2]) > 2 * size
    # OpenCV takes rows with gaps between them, and refuses mirrored or turned ones.
    if pixels.strides[1:] != (3, 1) or pixels.strides[0] < 0:
        pixels = np.ascontiguousarray(pixels)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if far else cv2.INTER_LINEAR)


def _cut(pixels: Pixels, box: Box, size: tuple[int, int]) -> Pixels:
    """The pixels of a box in an image of that height and width, which may have been decoded smaller."""
    spans = []
    for start, length, old, new in zip(box[:2], box[2:], size, pixels.shape, strict=False):
        scaled = max(1, round(length * new / old))
        first = min(round(start * new / old), new - scaled)
        spans.append(slice(first, first + scaled))
    return pixels[tuple(spans)]


def pixels_of(image: Image.Image, orientation: Orientation = "exif", max_pixels: int = MAX_PIXELS) -> Pixels:
    """An open image's pixels, (H, W, 3) RGB, upright or as they are stored; may be a view.

    Raises BrokenImageError for too many pixels, and what Pillow raises for broken files.
    """
    check_pixels(image.size, max_pixels)
    pixels = _rgb(image)
    # Asked after loading, since TIFF images are turned by it.
    return upright(pixels, image_orientation(image)) if orientation == "exif" else pixels


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """A view of (H, W, 3) pixels as they are to be seen; orientations from 5 exchange height and width."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # Of what is then left: a mirror image, upside down, or both.
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]


class _Scratch(threading.local):
    """Memory that one decoded image after another is written to: fresh pages cost a quarter of the decoding."""

    memory = np.empty(0, np.uint8)

    def __call__(self, size: int) -> NDArray[np.uint8] | None:
        """At least `size` bytes, overwritten by the thread's next image; None for one that is too large."""
        if size > MAX_SCRATCH:
            return None
        if size > self.memory.size:
            self.memory = np.empty(size, np.uint8)
        return self.memory


_scratch = _Scratch()


def _decode_with_pillow(data: bytes, orientation: Orientation, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Everything else: other formats, CMYK, 16 bits, palettes, the first frame of an animation; may be a view."""
    if not data:
        raise BrokenImageError("zero bytes")
    with broken_image_errors():
        if is_heic(data):
            # The format itself is turned when it is decoded.
            heic = open_heic(data)
            check_pixels(heic.size, max_pixels)
            return np.array(heic.to_pillow().convert("RGB"), dtype=np.uint8)
        with open_image(data) as image:
            return pixels_of(image, orientation, max_pixels)


def _decode_large(data: bytes, min_side: int, orientation: Orientation, max_whole: int) -> Pixels:
    """Pixels whose longer side is at least `min_side` long, as far as the format can shrink by itself."""
    with broken_image_errors(), open_image(data) as image:
        check_pixels(image.size, MAX_SHRINKING if image.format in ("JPEG", "JPEG2000") else max_whole)
        longer = max(image.size)
        if image.format == "JPEG" and image.mode != "CMYK":
            width, height = (max(1, round(side * (min_side / longer))) for side in image.size)
            pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, min_factor=1)
        elif image.mode in REDUCIBLE and not isinstance(image, Jpeg2KImageFile):
            # By whole numbers and area, without a second copy of the whole.
            pixels = _rgb(image.reduce(max(1, longer // min_side)))
        else:
            if isinstance(image, Jpeg2KImageFile):
                image.reduce = max(0, (longer // min_side).bit_length() - 1)  # pyright: ignore[reportAttributeAccessIssue]
            pixels = _rgb(image)
        return np.ascontiguousarray(upright(pixels, image_orientation(image)) if orientation == "exif" else pixels)


def _rgb(image: Image.Image) -> Pixels:
    """An image of any mode as RGB; of 16 bits the upper 8."""
    if image.mode.startswith("I"):
        grey = (np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"), dtype=np.uint8)

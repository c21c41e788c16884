"""Decode images to uint8 RGB pixels: exactly at full size, and quickly for training crops and shrunk images."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast, get_args

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from dolglab.contracts import Colour, Crop, Decoding, Orientation
from dolglab.data.colour import Pixels, rgb_of, to_srgb
from dolglab.data.crops import Box, CropRange, random_box
from dolglab.data.image_errors import (
    MAX_PIXELS,
    BrokenImageError,
    OutOfMemoryError,
    TooLargeError,
    broken_image_errors,
    check_pixels,
    check_sides,
)
from dolglab.data.image_formats import (
    image_orientation,
    is_damage,
    is_heic,
    is_jxl,
    jpeg_orientation,
    jpeg_profile,
    jpeg_size,
    without_padding,
)
from dolglab.data.image_opening import open_picture
from dolglab.errors import UserError

# Images with more bytes of pixels than this are decoded into new memory.
MAX_SCRATCH = 64_000_000
# The most pixels that `decode_shrunk` decodes: for formats that can be decoded at reduced size, and for others, which
# temporarily need up to 14 bytes per pixel.
MAX_SHRINKING, MAX_WHOLE = 600_000_000, 400_000_000
# Modes that Pillow can shrink directly.
REDUCIBLE = ("L", "RGB", "RGBA", "CMYK")

# The most bytes per pixel that decoding needs temporarily, and the most bytes for all threads together.
DECODING, MEMORY = 14, 3_000_000_000


class MemoryBudget:
    """A limit on the bytes that all threads of this process use together; a larger request runs alone."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Reserve this many bytes, waiting until they are available."""
        size = min(size, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self._used + size <= self.size)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


_budget = MemoryBudget(MEMORY)


class Reading(NamedTuple):
    """How images are read.

    Attributes:
        orientation: "exif" turns images upright by their EXIF data, "ignore" uses them as stored.
        colour: "srgb" converts images from their ICC profiles, "ignore" uses their values as sRGB.
        min_side: training images with a side of fewer pixels count as broken.
        damaged: read JPEGs that are truncated or damaged as far as possible.
        decoding: "full" decodes photos at full size before shrinking, "scaled" decodes large JPEGs at a reduced size:
            see `decode_shrunk`.
    """

    orientation: Orientation = "exif"
    colour: Colour = "srgb"
    min_side: int = 1
    damaged: bool = False
    decoding: Decoding = "full"


READ_ALL = Reading()


def checked_reading(orientation: object, colour: object, min_side: object = 1) -> Reading:
    """These options as a `Reading`. Raises UserError for an unknown value, or a side that is not at least 1."""
    for name, value, choices in (("orientation", orientation, Orientation), ("colour", colour, Colour)):
        if value not in get_args(choices):
            raise UserError(f"{name} must be {' or '.join(get_args(choices))}, not {value}")
    if not isinstance(min_side, int) or min_side < 1:
        raise UserError(f"min_side must be a whole number above 0, not {min_side}")
    return Reading(cast("Orientation", orientation), cast("Colour", colour), min_side)


def decode(data: bytes, reading: Reading = READ_ALL, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The whole image at full resolution, (H, W, 3) RGB, as `reading` says. Raises BrokenImageError."""
    return _finish(*_decode(data, reading, max_pixels))


def decode_shrunk(
    data: bytes, max_side: int, reading: Reading = READ_ALL, max_pixels: int = MAX_PIXELS, max_whole: int = MAX_WHOLE
) -> Pixels:
    """An image whose longer side is shrunk to `max_side`, (H, W, 3) RGB, as `reading` says.

    Up to `max_pixels`, this is `shrink(decode(data))`, except that colours are converted last. Larger JPEG and JPEG
    2000 images, up to `MAX_SHRINKING` pixels, are decoded at the smallest of their own scales that is at least twice
    `max_side`; other formats, up to `max_whole` pixels, are decoded at full size and then shrunk.

    With `reading.decoding` "scaled", a JPEG more than twice as large as `max_side` is decoded at half its size, or
    smaller if that leaves four times `max_side`: libjpeg's quarter and eighth sizes are less close to the mean of an
    area (experiments/benchmarks/photo_sizes.py). Raises BrokenImageError.
    """
    try:
        pixels, profile = _decode(data, reading, max_pixels, max_side if reading.decoding == "scaled" else None)
    except TooLargeError:
        if is_heic(data) or is_jxl(data):
            raise
        pixels, profile = _decode_large(data, 2 * max_side, reading, max_whole)
    return _finish(shrink(pixels, max_side), profile)


def stored_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of an encoded image in pixels, not turned upright; None where its header cannot be read."""
    try:
        if size := jpeg_size(data, MAX_SHRINKING):
            return size
        width, height = open_picture(data, MAX_SHRINKING, MAX_SHRINKING).size
        return height, width
    except Exception:  # Broken headers make their readers raise nearly anything.
        return None


def decode_crop(
    data: bytes, crop: CropRange, size: int, rng: np.random.Generator, reading: Reading = READ_ALL
) -> Pixels:
    """A random crop, resized to (size, size, 3) RGB.

    A JPEG is decoded at the smallest of libjpeg's scales (1, 1/2, 3/8, 1/4, 1/8) at which the crop is still at least
    `size`. Raises BrokenImageError, also for an image with a side below `reading.min_side`.
    """
    shape = jpeg_size(data)
    if shape is None:
        pixels, profile = _decode_others(data, reading)
        height, width = pixels.shape[:2]
        check_sides(height, width, reading.min_side)
        box = random_box(height, width, crop, rng)
        return _finish(resize(_cut(pixels, box, (height, width)), size), profile)
    check_sides(*shape, reading.min_side)
    turn = jpeg_orientation(data, reading.orientation)
    height, width = shape[::-1] if turn >= 5 else shape
    box = random_box(height, width, crop, rng)
    needed = min(height, math.ceil(height * size / box.height)), min(width, math.ceil(width * size / box.width))
    pixels = _decode_jpeg(
        data,
        reading,
        min_height=needed[turn >= 5],
        min_width=needed[turn < 5],
        # Between a half and full size libjpeg-turbo has no SIMD: slower than decoding at full size.
        min_factor=2,
        # About one grey level less exact, which does not affect training.
        fastdct=True,
        fastupsample=True,
        buffer=_scratch(3 * height * width),
    )
    if pixels is None:
        pixels, profile = _decode_others(data, reading)
    else:
        pixels, profile = upright(pixels, turn), _profile_of(data, reading)
    return _finish(resize(_cut(pixels, box, (height, width)), size), profile)


def crop_query(pixels: Pixels, box: NDArray[np.float64], crop: Crop) -> Pixels:
    """The query inside its box x1, y1, x2, y2 (pixels; NaN for none).

    "pil" rounds the coordinates like the benchmark's example, "trunc" truncates them like the released DOLG code,
    "none" does not crop. Raises BrokenImageError for a box outside the image.
    """
    if crop == "none" or np.isnan(box).any():
        return pixels
    x1, y1, x2, y2 = (max(0, round(v) if crop == "pil" else int(v)) for v in box.tolist())
    inside = pixels[y1:y2, x1:x2]
    if not inside.size:
        raise BrokenImageError(f"the query box {box.tolist()} has no pixel inside the image")
    return np.ascontiguousarray(inside)


def shrink(pixels: Pixels, max_side: int | None) -> Pixels:
    """Pixels with their longer side shrunk to `max_side`, by area; smaller images are not changed."""
    longer = max(pixels.shape[:2])
    if max_side is None or longer <= max_side:
        return pixels
    import cv2

    height, width = (max(1, round(side * max_side / longer)) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def resize(pixels: Pixels, size: int) -> Pixels:
    """Pixels resized to a square of `size`: linear, or by area if both sides shrink to less than half."""
    import cv2

    far = min(pixels.shape[:2]) > 2 * size
    # OpenCV accepts rows with gaps between them, but no mirrored or rotated arrays.
    if pixels.strides[1:] != (3, 1) or pixels.strides[0] < 0:
        pixels = np.ascontiguousarray(pixels)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if far else cv2.INTER_LINEAR)


def _cut(pixels: Pixels, box: Box, size: tuple[int, int]) -> Pixels:
    """The pixels of a box in an image of this height and width, which may have been decoded at a smaller size."""
    spans = []
    for start, length, old, new in zip(box[:2], box[2:], size, pixels.shape, strict=False):
        scaled = max(1, round(length * new / old))
        first = min(round(start * new / old), new - scaled)
        spans.append(slice(first, first + scaled))
    return pixels[tuple(spans)]


def pixels_of(image: Image.Image, reading: Reading = READ_ALL, max_pixels: int = MAX_PIXELS) -> Pixels:
    """An open image's pixels, (H, W, 3) RGB, as `reading` says; may be a view.

    Raises BrokenImageError for too many pixels, and Pillow's errors for broken files.
    """
    check_pixels(image.size, max_pixels)
    pixels, profile = rgb_of(image, reading.colour)
    # Read after loading, because loading turns TIFF images.
    turn = image_orientation(image) if reading.orientation == "exif" else 1
    return _finish(upright(pixels, turn), profile)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """A view of (H, W, 3) pixels turned upright; orientations from 5 exchange height and width."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # What remains: mirrored, upside down, or both.
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]


class _Scratch(threading.local):
    """Memory that is reused for decoded images: new pages would cost a quarter of the decoding time."""

    memory = np.empty(0, np.uint8)

    def __call__(self, size: int) -> NDArray[np.uint8] | None:
        """At least `size` bytes, overwritten by the thread's next image; None if it is too large."""
        if size > MAX_SCRATCH:
            return None
        if size > self.memory.size:
            self.memory = np.empty(size, np.uint8)
        return self.memory


_scratch = _Scratch()


def _finish(pixels: Pixels, profile: bytes | None) -> Pixels:
    """Contiguous pixels in sRGB: the last step, because it costs more than decoding and shrinking."""
    pixels = np.ascontiguousarray(pixels)
    return pixels if profile is None else to_srgb(pixels, profile)


def _decode(data: bytes, reading: Reading, max_pixels: int, max_side: int | None = None) -> tuple[Pixels, bytes | None]:
    """An image's pixels (may be a view), and the profile from which they must still be converted.

    With `max_side`, large JPEGs are decoded at a smaller size, as described for "scaled" in `decode_shrunk`.
    """
    shape = jpeg_size(data, max_pixels if max_side is None else MAX_SHRINKING)
    if shape is not None:
        longer = max(shape)
        scale: dict[str, Any] = {}
        if max_side is not None and longer > 2 * max_side:
            # Between a half and full size libjpeg-turbo has no SIMD.
            scale = _least_sides(shape, min(longer // 2, 4 * max_side)) | {"min_factor": 2}
        with _budget.taken(3 * shape[0] * shape[1]):
            pixels = _decode_jpeg(data, reading, **scale)
        if pixels is not None:
            return upright(pixels, jpeg_orientation(data, reading.orientation)), _profile_of(data, reading)
    return _decode_others(data, reading, max_pixels)


def _decode_jpeg(data: bytes, reading: Reading, colours: str = "RGB", **options: Any) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG, as stored; None for one that libjpeg-turbo refuses but Pillow may be able to read.

    Raises BrokenImageError for damaged bytes, unless `reading` accepts them.
    """
    options |= {"colorspace": colours, "strict": not reading.damaged}
    try:
        try:
            return simplejpeg.decode_jpeg(data, **options)
        except ValueError as error:
            complaint = error
        unpadded = without_padding(data)
        if unpadded != data:
            try:
                return simplejpeg.decode_jpeg(unpadded, **options)
            except ValueError as error:
                complaint = error
    except MemoryError as error:
        raise OutOfMemoryError from error
    if is_damage(str(complaint)):
        raise BrokenImageError(f"a damaged JPEG: {complaint}") from complaint
    return None


def _profile_of(data: bytes, reading: Reading) -> bytes | None:
    return jpeg_profile(data) if reading.colour == "srgb" else None


def _decode_others(
    data: bytes, reading: Reading, max_pixels: int = MAX_PIXELS, min_side: int | None = None
) -> tuple[Pixels, bytes | None]:
    """Like `_decode`, for everything else: other formats, CMYK, the first frame of an animation.

    With `min_side`, images are shrunk by integer factors, so that the longer side is at least that long.
    """
    if not data:
        raise BrokenImageError("zero bytes")
    if data[:2] == b"\xff\xd8" and not reading.damaged:
        # Pillow ignores damage; decoding at an eighth of the size reads all bytes too.
        _decode_jpeg(data, reading, "CMYK", min_height=1, min_width=1)
    with broken_image_errors():
        opened = open_picture(data, max_pixels, None if min_side is None else MAX_SHRINKING)
        width, height = opened.size
        with _budget.taken(DECODING * width * height), opened.load() as image:
            picture = image if min_side is None else _reduced(image, max(1, max(width, height) // min_side))
            pixels, profile = rgb_of(picture, reading.colour)
            # Read after decoding, because decoding turns TIFF images.
            turn = image_orientation(image) if opened.turn is None else opened.turn
            return upright(pixels, turn if reading.orientation == "exif" else 1), profile


def _decode_large(data: bytes, min_side: int, reading: Reading, max_whole: int) -> tuple[Pixels, bytes | None]:
    """Like `_decode`, but at a reduced size with the longer side at least `min_side`, if the format allows it."""
    shape = jpeg_size(data, MAX_SHRINKING)
    if shape is not None:
        pixels = _decode_jpeg(data, reading, **_least_sides(shape, min_side), min_factor=1)
        if pixels is not None:
            return upright(pixels, jpeg_orientation(data, reading.orientation)), _profile_of(data, reading)
    return _decode_others(data, reading, max_whole, min_side)


def _least_sides(shape: tuple[int, int], min_side: int) -> dict[str, Any]:
    """Options with which simplejpeg decodes a JPEG of this height and width to a longer side of at least `min_side`."""
    height, width = (max(1, round(side * (min_side / max(shape)))) for side in shape)
    return {"min_height": height, "min_width": width}


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """An image shrunk by an integer factor, if its format or mode allows it."""
    if isinstance(image, Jpeg2KImageFile):
        image.reduce = factor.bit_length() - 1  # pyright: ignore[reportAttributeAccessIssue]
    elif image.mode in REDUCIBLE:
        # By area, without a second copy of the full size.
        smaller = image.reduce(factor)
        smaller.info, smaller.format = image.info, image.format
        return smaller
    return image

"""Metadata of encoded images, read before their pixels are decoded: format, size, orientation, ICC profile."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import simplejpeg
from PIL import Image

from dolglab.contracts import Orientation
from dolglab.data.colour_spaces import OPTION_FILE, stated_profile
from dolglab.data.image_errors import MAX_PIXELS, BrokenImageError, broken_image_errors, check_pixels
from dolglab.data.tiff import is_tiff, open_tiff

# Formats that are opened, with their suffixes. Pillow knows more, some of which start other programs (EPS). Pillow's
# JPEG plugin also opens MPO.
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
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
JXL_CODESTREAM, JXL_CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
JPEG2000_CODESTREAM = b"\xff\x4f\xff\x51"

# The EXIF tag of the orientation, and the marks before an EXIF block and an ICC profile. Files without them are not
# parsed.
ORIENTATION_TAG = 0x0112
EXIF_MARK, ICC_MARK = b"Exif\0\0", b"ICC_PROFILE\0"
# No camera or program makes a JPEG with more passes over its pixels.
MAX_SCANS = 100


class Header(NamedTuple):
    """The suffix of the format, width and height in pixels."""

    suffix: str
    width: int
    height: int


def read_header(data: bytes) -> Header:
    """The header of an encoded image.

    Raises NoImageError if it is not an image, TooLargeError if it has more pixels than Pillow opens, and
    BrokenImageError if it is damaged or unsupported.
    """
    with broken_image_errors():
        if is_heic(data):
            return Header(".heic", *open_heic(data).size)
        if is_jxl(data):
            return Header(".jxl", *jxl_size(data))
        if is_tiff(data):
            return Header(".tif", *open_tiff(data).size)
        with open_image(data) as image:
            return Header(FORMATS[image.format or ""], *image.size)


def open_image(data: bytes) -> Image.Image:
    """Open an encoded image in one of `FORMATS` with Pillow, without decoding it. Raises the errors of Pillow."""
    Image.init()
    # Not every build of Pillow supports all of them.
    return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])


def jpeg_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | None:
    """Height and width of a JPEG that libjpeg-turbo can decode to RGB; None for everything else.

    Raises TooLargeError, and BrokenImageError for more than `MAX_SCANS` passes.
    """
    if data[:2] != b"\xff\xd8":
        return None
    try:
        height, width, colourspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colourspace in ("CMYK", "YCCK"):
        return None
    check_jpeg(data, (int(width), int(height)), max_pixels)
    return int(height), int(width)


def check_jpeg(data: bytes, size: tuple[int, int], max_pixels: int) -> None:
    """Raise TooLargeError like `check_pixels`, and BrokenImageError for more than `MAX_SCANS` passes over pixels."""
    check_pixels(size, max_pixels, len(data))
    end = jpeg_header_end(data)
    # If the first scan has all components, there is only one.
    several = data.find(b"\xff\xc2", 0, end) >= 0 or data[end + 4 : end + 5] in (b"\1", b"\2")
    scans = data.count(b"\xff\xda", end) if several else 1
    if scans > MAX_SCANS:
        raise BrokenImageError(f"a JPEG with {scans} scans, above the limit of {MAX_SCANS}")


def is_damage(complaint: str) -> bool:
    """Whether a warning of libjpeg-turbo means damage to the picture, not an oddity of its header.

    >>> is_damage("Premature end of JPEG file"), is_damage("Invalid SOS parameters for sequential JPEG")
    (True, False)
    """
    return complaint.startswith(("Premature end of JPEG", "Corrupt JPEG data"))


def without_padding(data: bytes) -> bytes:
    """A JPEG without the harmless extra bytes that some programs leave between the segments of its header."""
    parts = [data[start:end] for start, end in _segments(data)]
    return b"".join([data[:2], *parts]) if parts else data


def with_orientation(data: bytes, orientation: int) -> bytes:
    """A JPEG whose EXIF has that orientation, 1 to 8, and nothing else; other data unchanged."""
    kept = [data[start:end] for start, end in _segments(data) if not data.startswith(EXIF_MARK, start + 4)]
    if not data.startswith(b"\xff\xd8") or not kept:
        return data
    # A TIFF of one directory with one entry, a short, and no further directory.
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, ORIENTATION_TAG, 3, 1, orientation, 0, 0)
    block = EXIF_MARK + tiff
    return b"".join([data[:2], b"\xff\xe1", struct.pack(">H", len(block) + 2), block, *kept])


def jpeg_header_end(data: bytes) -> int:
    """Offset of the marker of a JPEG's first scan; the length of the data if there is none."""
    return next((start for start, end in _segments(data) if end == len(data)), len(data))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Starts and ends of the segments of a JPEG's header; the last one begins with the first scan."""
    place = 2
    while 0 <= (start := data.find(b"\xff", place)) < len(data) - 4:
        kind = data[start + 1]
        if kind == 0xDA:
            yield start, len(data)
            return
        if kind in (0x00, 0xFF):
            place = start + 1
            continue
        place = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        yield start, place


def jpeg_exif(data: bytes) -> bytes | None:
    """The EXIF block of a JPEG, including `EXIF_MARK`; None if it has none."""
    for start, end in _segments(data):
        if data.startswith(EXIF_MARK, start + 4):
            return data[start + 4 : end]
    return None


def jpeg_orientation(data: bytes, orientation: Orientation) -> int:
    """The orientation of a JPEG, 1 (upright) to 8; 1 if it is to be ignored, missing or unreadable."""
    if orientation == "ignore" or data.find(EXIF_MARK, 0, jpeg_header_end(data)) < 0:
        return 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image_orientation(image)
    except Exception:  # Pillow can raise almost anything for broken metadata; the pixels may be whole.
        return 1


def jpeg_profile(data: bytes) -> bytes | None:
    """A JPEG's ICC profile, or that of the space named in its EXIF; None if there is none, or if it is unreadable."""
    end = jpeg_header_end(data)
    if data.find(ICC_MARK, 0, end) < 0 and data.find(OPTION_FILE.encode(), 0, end) < 0:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.info.get("icc_profile") or stated_profile(image)
    except Exception:  # As above.
        return None


def image_orientation(image: Image.Image) -> int:
    """The orientation of an open image, 1 to 8."""
    try:
        stated = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # As above.
        return 1
    return stated if stated in range(1, 9) else 1


def is_heic(data: bytes) -> bool:
    """Whether the data is a HEIC file."""
    # AVIF can have the same first brand.
    return data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS and b"avif" not in data[12:64]


def open_heic(data: bytes) -> Any:
    """Open a HEIC file without decoding it; `size` is (width, height). Raises ImportError, and ValueError if broken."""
    try:
        from pillow_heif import open_heif
    except ImportError:
        raise ImportError("HEIC: pip install 'dolglab[heic]'") from None
    return open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)


def is_jxl(data: bytes) -> bool:
    """Whether the data begins like a JPEG XL file."""
    return data.startswith((JXL_CODESTREAM, JXL_CONTAINER))


def jxl_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG XL, as stored (ISO/IEC 18181-1). Raises ValueError for a file without a codestream."""
    start = 0
    if data.startswith(JXL_CONTAINER):
        whole, part = data.find(b"jxlc"), data.find(b"jxlp")
        # A part begins with its number.
        start = whole + 4 if whole >= 0 else part + 8
    if not data.startswith(JXL_CODESTREAM, start):
        raise ValueError("a JPEG XL without a picture")
    bits, place = int.from_bytes(data[start + 2 : start + 18], "little"), 0

    def take(count: int) -> int:
        nonlocal place
        value = bits >> place & (1 << count) - 1
        place += count
        return value

    def side(small: int) -> int:
        return 8 * (take(5) + 1) if small else 1 + take((9, 13, 18, 30)[take(2)])

    small = take(1)
    height = side(small)
    shape = take(3)
    if not shape:
        return side(small), height
    over, under = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[shape - 1]
    return height * over // under, height


class Jpeg2000Header(NamedTuple):
    """Number of components of a JPEG 2000, bits of the deepest one, and the ICC profile."""

    components: int
    bits: int
    profile: bytes | None


def jpeg2000_header(data: bytes) -> Jpeg2000Header:
    """The header of a JPEG 2000. Raises struct.error and ValueError for a file that is truncated in its header."""
    start = data.index(JPEG2000_CODESTREAM)
    (components,) = struct.unpack_from(">H", data, start + 40)
    depths = data[start + 42 : start + 42 + 3 * components : 3]
    # A colour specification box of the second method holds a profile.
    box = data.find(b"colr", 0, start)
    profile = None
    if box >= 4 and data[box + 4] == 2:
        (length,) = struct.unpack_from(">I", data, box - 4)
        profile = data[box + 7 : box - 4 + length]
    return Jpeg2000Header(components, max(depth & 0x7F for depth in depths) + 1, profile)

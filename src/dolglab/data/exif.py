"""When and where a photo was taken, from its EXIF, read without decoding a pixel.

Tags and their values are those of Exif 2.32 (CIPA DC-008-2019), section 4.6.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from dolglab.data.image_formats import is_heic, jpeg_exif, open_heic, open_image
from dolglab.data.tiff import is_tiff

# The columns of a photo.
TAKEN, LATITUDE, LONGITUDE = COLUMNS = ("taken", "latitude", "longitude")
DATE = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
OFFSET = re.compile(r"[+-](0\d|1[0-4]):[0-5]\d")
# The year of the oldest surviving photograph.
FIRST_YEAR = 1826
PNG_MARK, PNG_EXIF = b"\x89PNG\r\n\x1a\n", b"eXIf"


def exif_columns(data: bytes) -> dict[str, str]:
    """`taken`, `latitude` and `longitude` of an encoded photo; missing and impossible values are left out.

    `taken` is DateTimeOriginal in ISO 8601, with OffsetTimeOriginal if present; the others are degrees, positive to the
    north and east. Raises nothing.
    """
    columns: dict[str, str] = {}
    # Pillow can raise almost anything for broken metadata; the pixels and the other directory may be whole.
    with suppress(Exception):
        exif = Image.Exif()
        exif.load(_exif_block(data) or b"")
        for directory, read in ((IFD.Exif, _taken), (IFD.GPSInfo, _place)):
            with suppress(Exception):
                columns |= read(exif.get_ifd(directory))
    return columns


def _exif_block(data: bytes) -> bytes | None:
    """The EXIF of a file: a TIFF, with or without `EXIF_MARK` before it. Raises the errors of Pillow."""
    if data.startswith(b"\xff\xd8"):
        return jpeg_exif(data)
    if is_tiff(data):
        return data
    if data.startswith(PNG_MARK):
        # Pillow would decode the picture to find a chunk after it.
        return next((value for kind, value in _png_chunks(data) if kind == PNG_EXIF), None)
    if is_heic(data):
        return open_heic(data).info.get("exif")
    with open_image(data) as image:
        return image.info.get("exif")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(PNG_MARK)
    while place + 8 <= len(data):
        kind, size = data[place + 4 : place + 8], int.from_bytes(data[place : place + 4])
        yield kind, data[place + 8 : place + 8 + size] if kind == PNG_EXIF else b""
        # The size does not include length, kind and checksum.
        place += size + 12


def _taken(ifd: dict[int, Any]) -> dict[str, str]:
    found = DATE.fullmatch(_text(ifd, Base.DateTimeOriginal))
    try:
        when = datetime.strptime(" ".join(found.groups()), "%Y %m %d %H %M %S") if found else None
    except ValueError:
        # Such as 0000:00:00, from a clock that was never set.
        return {}
    if when is None or when.year < FIRST_YEAR:
        return {}
    offset = _text(ifd, Base.OffsetTimeOriginal)
    return {TAKEN: when.isoformat() + (offset if OFFSET.fullmatch(offset) else "")}


def _text(ifd: dict[int, Any], tag: int) -> str:
    return str(ifd.get(tag, "")).strip("\0 ")


def _place(ifd: dict[int, Any]) -> dict[str, str]:
    latitude = _degrees(ifd.get(GPS.GPSLatitude), _text(ifd, GPS.GPSLatitudeRef), "NS", 90)
    longitude = _degrees(ifd.get(GPS.GPSLongitude), _text(ifd, GPS.GPSLongitudeRef), "EW", 180)
    # Receivers without a fix report 0, 0.
    if latitude is None or longitude is None or latitude == longitude == 0:
        return {}
    return {LATITUDE: f"{latitude:.6f}", LONGITUDE: f"{longitude:.6f}"}


def _degrees(parts: Any, ref: str, refs: str, most: int) -> float | None:
    """Decimal degrees from degrees, minutes and seconds, of which the last may be missing; None for invalid angles."""
    if parts is None or ref not in tuple(refs):
        return None
    # Pillow returns a single number without a tuple.
    several = parts if isinstance(parts, tuple) else (parts,)
    degrees, minutes, seconds = (*map(float, several), 0.0, 0.0)[:3]
    value = degrees + minutes / 60 + seconds / 3600
    # 0/0 is NaN; parts are not negative; rounding may give 60.
    if not (math.isfinite(value) and min(degrees, minutes, seconds) >= 0 and max(minutes, seconds) <= 60):
        return None
    if value > most:
        return None
    return -value if ref == refs[1] else value

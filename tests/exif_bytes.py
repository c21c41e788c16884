"""EXIF written byte by byte by the standard (CIPA DC-008, section 4.6), independent of readers."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

Rational = tuple[int, int]
Value = str | int | Sequence[Rational]
MAKE, EXIF_IFD, GPS_IFD = 0x010F, 0x8769, 0x8825
TAKEN, OFFSET = 0x9003, 0x9011
LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE = 1, 2, 3, 4


def exif_bytes(photo: Mapping[int, Value], gps: Mapping[int, Value], order: str = ">") -> bytes:
    """A TIFF of three directories: a maker, and the given contents of the two others."""
    head = struct.pack(f"{order}2sHI", b"MM" if order == ">" else b"II", 42, 8)
    sizes = [len(_directory({MAKE: "x", EXIF_IFD: 0, GPS_IFD: 0}, 0, order)), len(_directory(photo, 0, order))]
    first, second = 8 + sizes[0], 8 + sum(sizes)
    parts = _directory({MAKE: "x", EXIF_IFD: first, GPS_IFD: second}, 8, order), _directory(photo, first, order)
    return b"".join([head, *parts, _directory(gps, second, order)])


def _directory(entries: Mapping[int, Value], start: int, order: str) -> bytes:
    """Entries of 12 bytes each; values of more than 4 bytes follow. `start` is the directory's offset."""
    behind, table = b"", struct.pack(f"{order}H", len(entries))
    end = start + 2 + 12 * len(entries) + 4
    for tag, value in sorted(entries.items()):
        kind, count, data = _encoded(value, order)
        if len(data) > 4:
            place = struct.pack(f"{order}I", end + len(behind))
            behind += data
        else:
            place = data.ljust(4, b"\0")
        table += struct.pack(f"{order}HHI", tag, kind, count) + place
    return table + bytes(4) + behind


def _encoded(value: Value, order: str) -> tuple[int, int, bytes]:
    if isinstance(value, str):
        text = value.encode("ascii") + b"\0"
        return 2, len(text), text
    if isinstance(value, int):
        return 4, 1, struct.pack(f"{order}I", value)
    return 5, len(value), b"".join(struct.pack(f"{order}II", *part) for part in value)


def in_jpeg(jpeg: bytes, exif: bytes) -> bytes:
    """A JPEG with an EXIF segment right at its beginning."""
    block = b"Exif\0\0" + exif
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def in_png(png: bytes, exif: bytes, last: bool = False) -> bytes:
    """A PNG with an eXIf chunk behind its header, or behind its pixels."""
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    place = png.rindex(b"IEND") - 4 if last else 33
    return png[:place] + chunk + png[place:]


def in_webp(webp: bytes, exif: bytes, size: tuple[int, int]) -> bytes:
    """A simple WebP as an extended one with an EXIF chunk at its end; `size` is width and height."""
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in size)
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + canvas
    chunk = b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) % 2)
    body = b"WEBP" + extended + webp[12:] + chunk
    return b"RIFF" + struct.pack("<I", len(body)) + body

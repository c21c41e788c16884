"""ICC profiles for colour spaces that a picture names or describes by numbers instead of containing a profile.

Cameras mark Adobe RGB in the EXIF; PNG has chunks for gamma and primaries.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

# x and y of white, red, green and blue, in this order.
Primaries = tuple[float, ...]

SRGB: Primaries = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
# Adobe RGB (1998), version 2005-05: white, primaries and exponent.
ADOBE_RGB: Primaries = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_GAMMA = 563 / 256
# Its name in EXIF 2.3, tag 1 of the interoperability block (DCF 2.0, "option file").
INTEROPERABILITY_INDEX, OPTION_FILE = 1, "R03"
# A gamma that stands for sRGB's own curve, written to PNG as 1 / 2.2.
SRGB_GAMMA, NEAR = 2.2, 0.05
# Larger values are ignored.
MAX_GAMMA = 10.0
D50 = np.array((0.9642, 1.0, 0.8249))
# Bradford's matrix, from XYZ to cone responses (Lam 1985, as in ICC.1:2022, annex E).
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
# Points of a curve.
POINTS = 1024


def stated_profile(image: Image.Image) -> bytes | None:
    """A profile of the space that an open image names or describes; None if it does neither, or if that is sRGB."""
    info = image.info
    if image.format == "PNG" and "srgb" in info:
        return None
    if image.format == "PNG" and (info.get("gamma") or info.get("chromaticity")):
        return _png_profile(1 / (info.get("gamma") or 1 / SRGB_GAMMA), tuple(info.get("chromaticity") or SRGB))
    if names_adobe_rgb(image):
        return matrix_profile(ADOBE_RGB, ADOBE_GAMMA)
    return None


def names_adobe_rgb(image: Image.Image) -> bool:
    """Whether an open image's EXIF names Adobe RGB."""
    try:
        index = image.getexif().get_ifd(ExifTags.IFD.Interop).get(INTEROPERABILITY_INDEX)
    except Exception:  # Pillow can raise almost anything for broken metadata; the pixels may be whole.
        return False
    return isinstance(index, str) and index.rstrip("\0") == OPTION_FILE


@lru_cache(maxsize=16)
def matrix_profile(primaries: Primaries, gamma: float | None) -> bytes:
    """An ICC profile (ICC.1:2001-04) of a space with three primaries; a gamma of None means sRGB's curve.

    Raises ValueError for primaries that define no colour space.
    """
    levels = np.linspace(0, 1, POINTS)
    srgb = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    light = np.rint(65535 * (srgb if gamma is None else levels**gamma)).astype(">u2")
    curve = b"curv" + bytes(4) + struct.pack(">I", POINTS) + light.tobytes()
    columns = _xyz_of(primaries).T
    tags = [(b"wtpt", _xyz(D50)), *zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(_xyz, columns), strict=True)]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = struct.pack(">I", start + len(body))
    head = size + bytes(4) + b"\x02\x20\0\0" + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28) + _fixed(D50)
    return head.ljust(128, b"\0") + table + body


def _png_profile(gamma: float, primaries: Primaries) -> bytes | None:
    if not 1 / MAX_GAMMA <= gamma <= MAX_GAMMA:
        return None
    like_srgb = abs(gamma / SRGB_GAMMA - 1) <= NEAR
    if like_srgb and np.allclose(primaries, SRGB, atol=0.005):
        return None
    try:
        return matrix_profile(primaries, None if like_srgb else gamma)
    except (ValueError, ZeroDivisionError, np.linalg.LinAlgError):
        return None


def _xyz_of(primaries: Primaries) -> NDArray[np.float64]:
    """XYZ of red, green and blue in columns, adapted to D50."""
    pairs = zip(primaries[::2], primaries[1::2], strict=True)
    white, *colours = (np.array((x / y, 1, (1 - x - y) / y)) for x, y in pairs)
    matrix = np.stack(colours, 1)
    matrix = matrix * np.linalg.solve(matrix, white)
    scale = np.diag((BRADFORD @ D50) / (BRADFORD @ white))
    adapted = np.linalg.inv(BRADFORD) @ scale @ BRADFORD @ matrix
    if not np.isfinite(adapted).all() or np.abs(adapted).max() > 4:
        raise ValueError("no colour space has these primaries")
    return adapted


def _xyz(value: NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(value)


def _fixed(value: NDArray[np.float64]) -> bytes:
    return np.rint(value * 65536).astype(">i4").tobytes()

"""ICC profiles written by hand (ICC.1:2001-04), and sRGB colours in these spaces by their formulas."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# Red, green and blue of each space as XYZ of D50, in rows.
PRIMARIES = {
    "sRGB": ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
    "ProPhoto": ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)),
    "linear": ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
}
GAMMAS = {"Adobe RGB": 2.19921875, "ProPhoto": 1.8, "linear": 1.0}
WHITE = np.array([0.9642, 1.0, 0.8249])


def decoded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear light, 0 to 1, of sRGB values (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB values of linear light, 0 to 1."""
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def curve_of(space: str) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Linear light of a space's values."""
    gamma = GAMMAS.get(space)
    return decoded if gamma is None else lambda values: values**gamma


def values_in(space: str, srgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """sRGB pixels, (H, W, 3), as values of another space."""
    xyz = decoded(srgb / 255) @ np.array(PRIMARIES["sRGB"])
    light = (xyz @ np.linalg.inv(np.array(PRIMARIES[space]))).clip(0, 1)
    gamma = GAMMAS.get(space)
    return np.rint(255 * (encoded(light) if gamma is None else light ** (1 / gamma))).astype(np.uint8)


def rgb_profile(space: str) -> bytes:
    """The profile of a space of `PRIMARIES`."""
    curve = _curve(curve_of(space))
    colours = zip(("rXYZ", "gXYZ", "bXYZ"), PRIMARIES[space], strict=True)
    tags = [(name, _xyz(colour)) for name, colour in colours] + [(f"{c}TRC", curve) for c in "rgb"]
    return _profile("RGB ", "XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile("GRAY", "XYZ ", [("kTRC", _curve(lambda values: values**gamma))])


def press_profile() -> tuple[bytes, dict[tuple[int, int, int, int], tuple[float, float, float]]]:
    """A CMYK profile whose corners have given colours; and L*, a*, b* by the amount of each ink, 0 or 255."""
    corners = {}
    for cyan, magenta, yellow, black in itertools.product((0, 255), repeat=4):
        lightness = 0.0 if black else 100 - (30 * cyan + 40 * magenta + 10 * yellow) / 255
        a, b = (0, 0) if black else ((-35 * cyan + 60 * magenta) / 255, (-40 * cyan + 80 * yellow) / 255)
        corners[cyan, magenta, yellow, black] = (lightness, a, b)
    lab = b"".join(bytes((round(light * 2.55), round(a) + 128, round(b) + 128)) for light, a, b in corners.values())
    straight = bytes(range(256))
    matrix = b"".join(_fixed(value) for value in np.eye(3).ravel())
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + 4 * straight + lab + 3 * straight
    return _profile("CMYK", "Lab ", [("A2B0", table)], kind="prtr"), corners


def srgb_of_lab(lab: tuple[float, float, float]) -> NDArray[np.float64]:
    """sRGB, 0 to 255, from L*, a*, b* with white D50."""
    fy = (lab[0] + 16) / 116
    f = np.array([fy + lab[1] / 500, fy, fy - lab[2] / 200])
    xyz = np.where(f > 6 / 29, f**3, (116 * f - 16) * 27 / 24389) * WHITE
    return 255 * encoded(xyz @ np.linalg.inv(np.array(PRIMARIES["sRGB"])))


def _profile(space: str, pcs: str, tags: list[tuple[str, bytes]], kind: str = "mntr") -> bytes:
    name = b"made for tests\0"
    description = b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78)
    tags = [("desc", description), ("wtpt", _xyz(tuple(WHITE))), ("cprt", b"text" + bytes(4) + b"none\0"), *tags]
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags:
        table += tag.encode() + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    words = (bytes(4), b"\2\x20\0\0", kind.encode(), space.encode(), pcs.encode())
    head = struct.pack(">I4s4s4s4s4s", start + len(body), *words)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + b"".join(map(_fixed, WHITE))
    return head.ljust(128, b"\0") + table + body


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(value: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, value))


def _curve(light: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> bytes:
    values = np.rint(65535 * light(np.linspace(0, 1, 1024))).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(values)) + values.tobytes()

"""Local features as a few bytes, as a library keeps them: a byte a value, places to a fraction of a pixel."""

from __future__ import annotations

import struct

import numpy as np

from dolglab.contracts import LocalFeatures
from dolglab.errors import UserError

# How many features of how many values, the photo's height and width, pixels a step of a place, and a value's step.
HEADER = struct.Struct("<HHIIff")
LARGEST_PLACE, LARGEST_VALUE = 65_535, 127


def packed_bytes(count: int, dim: int) -> int:
    """Bytes of so many features of so many values.

    >>> packed_bytes(1000, 64)
    68020
    """
    return HEADER.size + count * (4 + dim)


def pack(features: LocalFeatures) -> bytes:
    """Keypoints and descriptors, strongest first; up to 65,535 of them.

    Places are rounded to a 65,535th of the longer side, values to a 127th of the largest. What is unpacked has the
    strongest first, but no scores and no sizes: verification asks for neither.
    """
    step = max(features.shape) / LARGEST_PLACE
    places = np.clip(np.rint(features.keypoints / step), 0, LARGEST_PLACE).astype("<u2")
    values = features.descriptors.astype(np.float32)
    scale = float(np.abs(values).max(initial=0)) / LARGEST_VALUE or 1.0
    header = HEADER.pack(*values.shape, *features.shape, step, scale)
    return header + places.tobytes() + np.rint(values / scale).astype(np.int8).tobytes()


def unpack(data: bytes, dim: int) -> LocalFeatures:
    """What `pack` was given, nearly. Raises UserError for bytes that it did not make of descriptors of `dim` values."""
    if len(data) < HEADER.size:
        raise UserError("kept local features are damaged")
    count, values_each, height, width, step, scale = HEADER.unpack_from(data)
    whole = values_each == dim and len(data) == packed_bytes(count, dim)
    if not (whole and 0 < step <= height + width and 0 < scale <= 1):
        raise UserError("kept local features are damaged")
    places = np.frombuffer(data, "<u2", 2 * count, HEADER.size).reshape(count, 2)
    values = np.frombuffer(data, np.int8, dim * count, HEADER.size + 4 * count).reshape(count, dim)
    unknown = np.zeros(count, np.float32)
    return LocalFeatures(
        places * np.float32(step), unknown, unknown, values * np.float32(scale), (int(height), int(width))
    )

"""Compact encoding of local features for a library: one byte per value, positions to a fraction of a pixel."""

from __future__ import annotations

import struct

import numpy as np

from dolglab.contracts import LocalFeatures
from dolglab.errors import UserError

# Number of features, values of each, the photo's height and width, step of positions in pixels, step of values.
HEADER = struct.Struct("<HHIIff")
LARGEST_PLACE, LARGEST_VALUE = 65_535, 127


def packed_bytes(count: int, dim: int) -> int:
    """The size in bytes of `count` features with `dim` values each.

    >>> packed_bytes(1000, 64)
    68020
    """
    return HEADER.size + count * (4 + dim)


def pack(features: LocalFeatures) -> bytes:
    """Encode up to 65,535 keypoints with descriptors, strongest first.

    Positions are rounded to 1/65,535 of the longer side, values to 1/127 of the largest. Scores and sizes are not
    stored, because verification does not use them.
    """
    step = max(features.shape) / LARGEST_PLACE
    places = np.clip(np.rint(features.keypoints / step), 0, LARGEST_PLACE).astype("<u2")
    values = features.descriptors.astype(np.float32)
    scale = float(np.abs(values).max(initial=0)) / LARGEST_VALUE or 1.0
    header = HEADER.pack(*values.shape, *features.shape, step, scale)
    return header + places.tobytes() + np.rint(values / scale).astype(np.int8).tobytes()


def unpack(data: bytes, dim: int) -> LocalFeatures:
    """Decode the bytes of `pack`. Raises UserError for invalid ones, and for descriptors without `dim` values."""
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

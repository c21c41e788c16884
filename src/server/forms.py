"""Fields of a form, as the library takes them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from src.errors import InputError
from src.library.query import Box, read_box

COLUMNS, KEY, VALUE = 50, 100, 1000


def read_part(text: str) -> Box | None:
    """A box, or None for nothing. Raises InputError for what is no box, or not finite."""
    if not text.strip():
        return None
    box = read_box(text)
    if not np.isfinite(box).all():
        raise InputError(f"a box is x1,y1,x2,y2 in pixels, not {text}")
    return box


def read_where(conditions: Sequence[str]) -> dict[str, str]:
    """Values by column, of COLUMN=VALUE each. Raises InputError for anything else."""
    for condition in conditions:
        if "=" not in condition:
            raise InputError(f"where wants COLUMN=VALUE, not {condition}")
    return dict(condition.split("=", 1) for condition in conditions)


def read_metadata(text: str) -> dict[str, str]:
    """A photo's columns, from a JSON object of strings. Raises InputError for anything else."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise InputError('metadata is a JSON object of strings, such as {"year": "1901"}') from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InputError('metadata is a JSON object of strings, such as {"year": "1901"}')
    if len(found) > COLUMNS:
        raise InputError(f"metadata has {len(found)} columns, more than {COLUMNS}")
    for key, value in found.items():
        # A quote or a backslash would end the name in SQLite's JSON paths.
        if not 0 < len(key) <= KEY or not key.isprintable() or set(key) & set('"\\'):
            raise InputError(f"a column's name is up to {KEY} characters without quotes or backslashes, not {key}")
        if len(value) > VALUE or "\0" in value or (not value.isascii() and not _is_unicode(value)):
            raise InputError(f"a column's value is up to {VALUE} characters of text: {key}")
    return found


def read_descriptor(text: str, dim: int) -> NDArray[np.float32]:
    """A descriptor, (dim,), L2-normalised, from float32 in base64. Raises InputError for anything else."""
    try:
        found = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        found = np.empty(0, np.float32)
    with np.errstate(all="ignore"):
        norm = np.linalg.norm(found.astype(np.float64))
    if found.shape != (dim,) or not np.isfinite(norm) or norm == 0:
        raise InputError(f"the descriptor is not one that /api/search gave: {dim} float32 in base64")
    return (found / norm).astype(np.float32)


def as_text(descriptor: NDArray[np.float32]) -> str:
    """A descriptor as `read_descriptor` reads it."""
    return base64.b64encode(descriptor.astype("<f4").tobytes()).decode()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

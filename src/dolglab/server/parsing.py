"""What clients send, checked and parsed: uploads, boxes, filters, metadata and descriptors."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence

import numpy as np
from fastapi import HTTPException, UploadFile
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.io import is_utf8
from dolglab.library.photos import Box, Header, TooManyPixelsError, photo_header, read_box

# Of a photo's metadata: columns, and characters of a column's name and of its value.
MAX_COLUMNS, MAX_KEY, MAX_VALUE = 50, 100, 1000


def read_upload(photo: UploadFile, max_bytes: int) -> bytes:
    """The bytes of an uploaded photo. Raises HTTPException 413 for more than `max_bytes`."""
    if photo.size is not None and photo.size > max_bytes:
        raise HTTPException(413, f"the photo has more than {max_bytes / 1e6:g} MB: send a smaller one")
    return photo.file.read()


def check_header(data: bytes, max_pixels: int) -> Header:
    """What an encoded photo says of itself, before a pixel is decoded. Raises UserError, and HTTPException 413."""
    try:
        header = photo_header(data)
    except TooManyPixelsError:
        raise HTTPException(413, f"the photo has more than {max_pixels / 1e6:g} megapixels: make it smaller") from None
    pixels = header.width * header.height
    if pixels > max_pixels:
        raise HTTPException(
            413, f"the photo has {pixels / 1e6:.1f} megapixels, more than {max_pixels / 1e6:g}: make it smaller"
        )
    return header


def parse_box(text: str) -> Box | None:
    """A box of finite numbers "x1,y1,x2,y2", or None for blank text. Raises UserError for anything else."""
    if not text.strip():
        return None
    box = read_box(text)
    if not np.isfinite(box).all():
        raise UserError(f"a box is x1,y1,x2,y2 in pixels, not {text}")
    return box


def parse_filters(conditions: Sequence[str]) -> dict[str, str]:
    """Values by column, of COLUMN=VALUE each. Raises UserError for anything else.

    >>> parse_filters(["year=1901", "note=a = b"])
    {'year': '1901', 'note': 'a = b'}
    """
    for condition in conditions:
        if "=" not in condition:
            raise UserError(f"where wants COLUMN=VALUE, not {condition}")
    return dict(condition.split("=", 1) for condition in conditions)


def parse_metadata(text: str) -> dict[str, str]:
    """A photo's columns, from a JSON object of strings. Raises UserError for anything else."""
    try:
        columns = json.loads(text or "{}")
    except (ValueError, RecursionError):
        columns = None
    if not isinstance(columns, dict) or not all(isinstance(value, str) for value in columns.values()):
        raise UserError('metadata is a JSON object of strings, such as {"year": "1901"}')
    if len(columns) > MAX_COLUMNS:
        raise UserError(f"metadata has {len(columns)} columns, more than {MAX_COLUMNS}")
    for key, value in columns.items():
        # A quote or a backslash would end the name in SQLite's JSON paths.
        if not 0 < len(key) <= MAX_KEY or not key.isprintable() or set(key) & set('"\\'):
            raise UserError(f"a column's name is up to {MAX_KEY} characters without quotes or backslashes, not {key}")
        if len(value) > MAX_VALUE or "\0" in value or not is_utf8(value):
            raise UserError(f"a column's value is up to {MAX_VALUE} characters of text: {key}")
    return columns


def parse_descriptor(text: str, dim: int) -> NDArray[np.float32]:
    """A descriptor, (dim,), L2-normalised, from little-endian float32 in base64. Raises UserError for anything else."""
    try:
        found = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        found = np.empty(0, np.float32)
    with np.errstate(all="ignore"):
        norm = np.linalg.norm(found.astype(np.float64))
    if found.shape != (dim,) or not np.isfinite(norm) or norm == 0:
        raise UserError(f"the descriptor is not one that /api/search gave: {dim} float32 in base64")
    return (found / norm).astype(np.float32)

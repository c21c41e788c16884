"""What GLDv2's csv files have in common: very long fields, and image ids of 16 hex digits."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

_IMAGE_ID = re.compile("[0-9a-f]{16}")


@contextmanager
def long_fields() -> Iterator[None]:
    """A landmark's images are one field, which may be longer than the csv module takes unless told otherwise."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def id_bytes(names: Sequence[str]) -> bytes:
    """The ids' eight bytes each, most significant first. Raises ValueError for a name that is no id."""
    for name in names:
        if not _IMAGE_ID.fullmatch(name):
            raise ValueError(f"{name!r} is not an image id of 16 hex digits (0-9a-f)")
    return bytes.fromhex("".join(names))


def id_numbers(data: bytes | bytearray) -> NDArray[np.uint64]:
    """What `id_bytes` gave, as numbers."""
    return np.frombuffer(data, ">u8").astype(np.uint64)

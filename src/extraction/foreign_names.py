"""Rows of a file found by the names of images, which others write with or without folder and extension."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.data.sources import IMAGE_SUFFIXES
from src.errors import some


def read_names(path: Path) -> list[str]:
    """The names in a text file, one a line, blank lines aside. Raises InputError when it cannot be read."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise InputError(f"the names of descriptors cannot be read: {path} ({error.strerror})") from error
    return [os.fsdecode(line.strip()) for line in lines if line.strip()]


def aligned(wanted: Sequence[str], listed: Sequence[str], what: str) -> NDArray[np.int64]:
    """Where in `listed` each wanted name stands: whole, else without its extension, else by its last part alone.

    The shorter forms count only where they are unique on both sides.
    Raises InputError, which begins with `what`, for names that are listed twice, and for wanted ones that are not
    listed or cannot be told apart.
    """
    if len(set(listed)) < len(listed):
        twice = [name for name, times in Counter(listed).items() if times > 1]
        raise InputError(f"{what}: names are listed more than once: {some(twice, 5)}")
    rows = np.full(len(wanted), -1)
    unclear = np.zeros(len(wanted), np.bool_)
    for form in (str, _without_suffix, _last_part):
        left = np.flatnonzero(rows < 0).tolist()
        if not left:
            break
        ours, theirs = [form(name) for name in wanted], [form(name) for name in listed]
        places = dict(zip(theirs, range(len(theirs)), strict=True))
        repeated = _repeated(ours) | _repeated(theirs)
        for position in left:
            place = places.get(ours[position])
            unclear[position] = place is not None and ours[position] in repeated
            if place is not None and not unclear[position]:
                rows[position] = place
    if unclear.any():
        names = [wanted[position] for position in np.flatnonzero(unclear).tolist()]
        raise InputError(
            f"{what}: {len(names):,} of {len(wanted):,} images cannot be told apart by these names: {some(names, 5)} "
            "(list such paths, or leave the names out and keep the benchmark's order)"
        )
    missing = [wanted[position] for position in np.flatnonzero(rows < 0).tolist()]
    if missing:
        raise InputError(f"{what}: {len(missing):,} of {len(wanted):,} images are not listed: {some(missing, 5)}")
    return rows


def _repeated(names: Sequence[str]) -> set[str]:
    if len(set(names)) == len(names):
        return set()
    return {name for name, times in Counter(names).items() if times > 1}


def _without_suffix(name: str) -> str:
    """Without an image's extension; names may have dots of their own."""
    stem, _, suffix = name.rpartition(".")
    return stem if f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _last_part(name: str) -> str:
    return _without_suffix(name.rpartition("/")[2])

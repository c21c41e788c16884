"""The photos that a person names: folders, files, or a prefix of an object store."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import fsspec
import numpy as np

from src.contracts import InputError
from src.data.images import reason
from src.data.sources import IMAGE_SUFFIXES, is_image, patiently, stable_ids, visible

# Bytes of a list that are read at a time.
CHUNK = 1 << 20


@dataclass(frozen=True)
class File:
    """A photo's file: absolute path or address, bytes, and when it was changed (nanoseconds, or 0)."""

    name: str
    size: int
    changed: int

    def read(self) -> bytes:
        """Its bytes. Raises OSError when they cannot be read, also a moment later."""
        return patiently(self._read_once)

    def _read_once(self) -> bytes:
        if "://" not in self.name:
            return Path(self.name).read_bytes()
        with fsspec.open(self.name, "rb") as file:
            return file.read()  # pyright: ignore[reportAttributeAccessIssue]


def find_photos(places: Sequence[str]) -> list[File]:
    """A few photos: every one that `files_below` finds, in the order of their names.

    Raises InputError for a place that is not there, and where there is no photo at all.
    """
    files = {file.name: file for place in places for file in files_below(place)}
    if not files:
        raise nothing_found(places)
    return [files[name] for name in sorted(files)]


def nothing_found(places: Sequence[str]) -> InputError:
    """What a person hears where there is no photo."""
    return InputError(f"no photos in {', '.join(places)}: files {' '.join(sorted(IMAGE_SUFFIXES))}")


def files_below(
    place: str,
    skipped: Callable[[str], None] = lambda name: None,
    failed: Callable[[OSError], None] = lambda error: None,
) -> Iterator[File]:
    """Every photo below a folder or prefix, or the file itself.

    Hidden files and folders are what tools leave, and are left out; links inside a folder are not followed out of it.

    Args:
        skipped: told the names of other files that are no photos by their names.
        failed: told of folders that cannot be looked into.

    Raises InputError for a place that is not there.
    """
    if "://" in place:
        yield from _of_store(place, skipped)
        return
    path = Path(place)
    if path.is_dir():
        yield from _of_folder(path.resolve(), skipped, failed)
    elif path.is_file():
        yield _file(path.parent.resolve() / path.name)
    else:
        raise InputError(f"{place}: no such file or folder")


def listed_in(path: str) -> Iterator[str]:
    """Paths and addresses in a text file, or in standard input for "-", as `find` prints them.

    One a line; with NUL in the file (`find -print0`) one from NUL to NUL. Raises InputError for a file that cannot be
    read.
    """
    try:
        with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
            yield from (os.fsdecode(name) for name in _parts(file) if name)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    rest, lines = b"", None
    while chunk := file.read(CHUNK):
        lines = b"\0" not in chunk if lines is None else lines
        *whole, rest = (rest + chunk).split(b"\n" if lines else b"\0")
        yield from (name.removesuffix(b"\r") for name in whole) if lines else whole
    yield rest


def _of_folder(root: Path, skipped: Callable[[str], None], failed: Callable[[OSError], None]) -> Iterator[File]:
    for folder, folders, names in os.walk(root, onerror=failed):
        folders[:] = sorted(filter(visible, folders))
        for name in sorted(filter(visible, names)):
            path = Path(folder, name)
            if not is_image(name):
                skipped(name)
            elif os.path.isfile(path) and path.resolve().is_relative_to(root):
                yield _file(path)


def _of_store(prefix: str, skipped: Callable[[str], None]) -> Iterator[File]:
    try:
        system, root = fsspec.core.url_to_fs(prefix)
        found = system.find(root, detail=True)
    except (ImportError, OSError, ValueError) as error:
        raise InputError(f"{prefix} cannot be listed: {error}") from error
    for name, about in sorted(found.items()):
        last = name.rpartition("/")[2]
        if is_image(last) and visible(last):
            yield File(system.unstrip_protocol(name), int(about.get("size") or 0), _changed(about))
        elif visible(last):
            skipped(last)


def _changed(about: dict[str, object]) -> int:
    """A number that is another one when the object is."""
    for key in ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created"):
        if about.get(key) is not None:
            return int(stable_ids([str(about[key])])[0] >> np.uint64(1))
    return 0


def _file(path: Path) -> File:
    about = path.stat()
    return File(str(path), about.st_size, about.st_mtime_ns)

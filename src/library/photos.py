"""The photos that a person names: folders, files, or a prefix of an object store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np

from src.contracts import InputError
from src.data.sources import IMAGE_SUFFIXES, is_image, patiently, stable_ids, visible


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
    """Every photo below folders and prefixes, and the files named themselves, in the order of their names.

    Hidden files and folders are what tools leave, and are left out; links inside a folder are not followed out of it.
    Raises InputError for a place that is not there, and where there is no photo at all.
    """
    files = {file.name: file for place in places for file in _below(place)}
    if not files:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no photos in {', '.join(places)}: files {kinds}")
    return [files[name] for name in sorted(files)]


def of_shard(files: Sequence[File], shard: str) -> list[File]:
    """The files of part "i/n" of n, from 1: which part a file is in follows from its whole name alone.

    Raises InputError for what is no such part.
    """
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"--shard wants i/n, such as 1/4 to 4/4 on four machines, not {shard}")
    mine = stable_ids([file.name for file in files]) % np.uint64(int(parts)) == int(part) - 1
    return [files[place] for place in np.flatnonzero(mine).tolist()]


def _below(place: str) -> Iterator[File]:
    if "://" in place:
        yield from _of_store(place)
        return
    path = Path(place)
    if path.is_dir():
        yield from _of_folder(path.resolve())
    elif path.is_file():
        yield _file(path.absolute())
    else:
        raise InputError(f"{place}: no such file or folder")


def _of_folder(root: Path) -> Iterator[File]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(filter(visible, folders))
        for path in (Path(folder, name) for name in sorted(names) if _is_photo(name)):
            if path.is_file() and path.resolve().is_relative_to(root):
                yield _file(path)


def _of_store(prefix: str) -> Iterator[File]:
    try:
        system, root = fsspec.core.url_to_fs(prefix)
        found = system.find(root, detail=True)
    except (ImportError, OSError, ValueError) as error:
        raise InputError(f"{prefix} cannot be listed: {error}") from error
    for name, about in sorted(found.items()):
        if _is_photo(name.rpartition("/")[2]):
            yield File(system.unstrip_protocol(name), int(about.get("size") or 0), _changed(about))


def _changed(about: dict[str, object]) -> int:
    """A number that is another one when the object is."""
    for key in ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created"):
        if about.get(key) is not None:
            return int(stable_ids([str(about[key])])[0] >> np.uint64(1))
    return 0


def _file(path: Path) -> File:
    about = path.stat()
    return File(str(path), about.st_size, about.st_mtime_ns)


def _is_photo(name: str) -> bool:
    return visible(name) and is_image(name)

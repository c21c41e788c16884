"""The photos that a person names: folders, files, or a prefix of an object store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import fsspec

from src.contracts import InputError
from src.data.sources import IMAGE_SUFFIXES


@dataclass(frozen=True)
class File:
    """A photo's file: absolute path or address, bytes, and when it was changed (nanoseconds, or 0)."""

    name: str
    size: int
    changed: int

    def read(self) -> bytes:
        """Its bytes. Raises OSError when they cannot be read."""
        if "://" in self.name:
            with fsspec.open(self.name, "rb") as file:
                return file.read()  # pyright: ignore[reportAttributeAccessIssue]
        return Path(self.name).read_bytes()


def find_photos(places: Sequence[str]) -> list[File]:
    """Every photo below folders and prefixes, and the files named themselves, in the order of their names.

    Links inside a folder are not followed out of it. Raises InputError for a place that is not there, and where there
    is no photo at all.
    """
    files = {file.name: file for place in places for file in _below(place)}
    if not files:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no photos in {', '.join(places)}: files {kinds}")
    return [files[name] for name in sorted(files)]


def of_shard(files: Sequence[File], shard: str | None) -> list[File]:
    """The share "i/n" of the files, the same on every machine; all without one. Raises InputError for no such share."""
    if shard is None:
        return list(files)
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputError(f"--shard wants i/n with i from 1 to n, such as 1/4, not {shard}")
    return [file for file in files if _hash(file.name) % int(count) == int(number) - 1]


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
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if _is_photo(name) and path.is_file() and (not path.is_symlink() or path.resolve().is_relative_to(root)):
                yield _file(path)


def _of_store(prefix: str) -> Iterator[File]:
    try:
        system, root = fsspec.core.url_to_fs(prefix)
        found = system.find(root, detail=True)
    except (ImportError, OSError, ValueError) as error:
        raise InputError(f"{prefix} cannot be listed: {error}") from error
    for name, about in sorted(found.items()):
        if _is_photo(name):
            yield File(system.unstrip_protocol(name), int(about.get("size") or 0), _changed(about))


def _changed(about: dict[str, object]) -> int:
    """A number that is another one when the object is."""
    for key in ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created"):
        if about.get(key) is not None:
            return _hash(str(about[key])) >> 1
    return 0


def _file(path: Path) -> File:
    about = path.stat()
    return File(str(path), about.st_size, about.st_mtime_ns)


def _is_photo(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(text), digest_size=8).digest(), "little")

"""The photos that a person names, as a table in a temporary file: millions of them take no memory."""

from __future__ import annotations

import csv
import errno
import os
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import fsspec
import numpy as np

from dolglab.data.image_formats import reason
from dolglab.data.sources import IMAGE_SUFFIXES, is_image, is_visible, stable_ids
from dolglab.errors import UserError
from dolglab.io import retry_io
from dolglab.library.catalogue import FILE

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
        return retry_io(self._read_once)

    def _read_once(self) -> bytes:
        if "://" not in self.name:
            return Path(self.name).read_bytes()
        with fsspec.open(self.name, "rb") as file:
            return file.read()  # pyright: ignore[reportAttributeAccessIssue]


def find_photos(places: Sequence[str]) -> list[File]:
    """A few photos: every one that `files_below` finds, in the order of their names.

    Raises UserError for a place that is not there, and where there is no photo at all.
    """
    files = {file.name: file for place in places for file in files_below(place)}
    if not files:
        raise nothing_found(places)
    return [files[name] for name in sorted(files)]


def nothing_found(places: Sequence[str]) -> UserError:
    """What a person hears where there is no photo."""
    return UserError(f"no photos in {', '.join(places)}: files {' '.join(sorted(IMAGE_SUFFIXES))}")


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

    Raises UserError for a place that is not there.
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
        raise UserError(f"{place}: no such file or folder")


def listed_in(path: str) -> Iterator[str]:
    """Paths and addresses in a text file, or in standard input for "-", as `find` prints them.

    One a line; with NUL in the file (`find -print0`) one from NUL to NUL. Raises UserError for a file that cannot be
    read.
    """
    try:
        with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
            yield from (os.fsdecode(name) for name in _parts(file) if name)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    rest, lines = b"", None
    while chunk := file.read(CHUNK):
        lines = b"\0" not in chunk if lines is None else lines
        *whole, rest = (rest + chunk).split(b"\n" if lines else b"\0")
        yield from (name.removesuffix(b"\r") for name in whole) if lines else whole
    yield rest


def _of_folder(root: Path, skipped: Callable[[str], None], failed: Callable[[OSError], None]) -> Iterator[File]:
    for folder, folders, names in os.walk(root, onerror=failed):
        folders[:] = sorted(filter(is_visible, folders))
        for name in sorted(filter(is_visible, names)):
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
        raise UserError(f"{prefix} cannot be listed: {error}") from error
    for name, about in sorted(found.items()):
        last = name.rpartition("/")[2]
        if is_image(last) and is_visible(last):
            yield File(system.unstrip_protocol(name), int(about.get("size") or 0), _changed(about))
        elif is_visible(last):
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


KEY = "file"


def read_metadata(path: str | Path, find: Callable[[str], list[str]]) -> Iterator[tuple[str | None, dict[str, str]]]:
    """The other columns of each row, and the whole name of the photo that it is of; None where it is of none.

    The column `file` may hold a whole path, the end of one, or a name alone.

    Args:
        find: gives the photos whose path ends so (see `Listing.ending`).

    Raises UserError for a table without that column, and for a name that several photos have.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as table:
            reader = csv.DictReader(table)
            if KEY not in (reader.fieldnames or ()):
                raise UserError(f"{path} has no column `{KEY}`, but {', '.join(reader.fieldnames or ()) or 'none'}")
            for row in reader:
                columns = {key: value or "" for key, value in row.items() if key is not None}
                yield _one(path, columns.pop(KEY), find), columns
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from error


def _one(path: str | Path, name: str, find: Callable[[str], list[str]]) -> str | None:
    names = find(name)
    if len(names) > 1:
        raise UserError(f"{path}: {len(names)} photos are called {name}, such as {names[0]}: write more of the path")
    return names[0] if names else None


SCHEMA = """
CREATE TABLE file (name BLOB PRIMARY KEY, size INTEGER, changed INTEGER, base BLOB, mine INTEGER) WITHOUT ROWID;
CREATE INDEX base ON file (base);
"""
# Of the files that a library does not know, or not as they are.
CHANGED = """
FROM file LEFT JOIN library.photo AS known USING (name)
WHERE mine AND (known.name IS NULL OR known.size != file.size OR known.changed != file.changed)
"""


class Listing:
    """Every photo below folders and prefixes, and the files named themselves, in the order of their names.

    Args:
        places: folders, prefixes and files.
        listed: a file that names more of them, see `listed_in`; what it names and is not there is left out.
        shard: "i/n", from 1: of n parts only this one counts. Which part a file is in follows from its name alone.

    Attributes:
        others: how many files were left out since they are no photos by their names, by the ends of these.
        unreadable: folders that could not be looked into, and what a list names that is not there.

    Raises UserError for a place that is not there, where there is no photo at all, and for what is no shard.
    """

    def __init__(self, places: Sequence[str], shard: str | None = None, listed: str | None = None) -> None:
        self._part, self._parts = (1, 1) if shard is None else read_shard(shard)
        self.unreadable: list[OSError] = []
        self.others: Counter[str] = Counter()
        self._folder = tempfile.TemporaryDirectory(prefix="listing-")
        self._db = sqlite3.connect(Path(self._folder.name) / "files.sqlite", isolation_level=None)
        self._db.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {SCHEMA}")
        try:
            self._fill(self._found(places, listed))
            if not self._number("SELECT COUNT(*) FROM file"):
                raise nothing_found([*places, *([] if listed is None else [listed])])
        except UserError:
            self.close()
            raise

    def __len__(self) -> int:
        """How many photos there are."""
        return self._number("SELECT COUNT(*) FROM file WHERE mine")

    def __iter__(self) -> Iterator[File]:
        """Every photo."""
        return _files(self._db.execute("SELECT name, size, changed FROM file WHERE mine ORDER BY name"))

    def close(self) -> None:
        """Let go of the table."""
        self._db.close()
        self._folder.cleanup()

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return self._number("SELECT SUM(size) FROM file WHERE mine")

    def ending(self, path: str) -> list[str]:
        """Names of the photos whose path is this, or ends with this, from a whole name on."""
        wanted = os.fsencode(path.strip("/"))
        rows = self._db.execute("SELECT name FROM file WHERE base = ?", (wanted.rpartition(b"/")[2],))
        return [os.fsdecode(name) for (name,) in rows if _ends(name, wanted)]

    def compare(self, library: Path) -> None:
        """Tell photos that are new or changed by what the library in a folder knows now; by nothing where it is not."""
        known = library / FILE
        if known.exists():
            self._db.execute("ATTACH ? AS library", (str(known),))
        else:
            self._db.execute("ATTACH ':memory:' AS library")
            self._db.execute("CREATE TABLE library.photo (name BLOB, size INTEGER, changed INTEGER)")

    def changed_count(self) -> int:
        """Photos that are new or changed; after `compare`."""
        return self._number(f"SELECT COUNT(*) {CHANGED}")

    def changed(self, every: int = 1) -> Iterator[File]:
        """Photos that are new or changed, or one of so many of them; after `compare`.

        They are what they were at the beginning, whatever is written to the library meanwhile.
        """
        self._db.execute("DROP TABLE IF EXISTS todo")
        self._db.execute(f"CREATE TABLE todo AS SELECT file.name, file.size, file.changed {CHANGED} ORDER BY file.name")
        return _files(self._db.execute("SELECT * FROM todo WHERE (rowid - 1) % ? = 0 ORDER BY rowid", (every,)))

    def _found(self, places: Sequence[str], listed: str | None) -> Iterator[File]:
        for place in places:
            yield from files_below(place, self._skipped, self.unreadable.append)
        for place in () if listed is None else listed_in(listed):
            try:
                yield from files_below(place, self._skipped, self.unreadable.append)
            except UserError:
                if "://" in place:
                    raise
                self.unreadable.append(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place))

    def _skipped(self, name: str) -> None:
        self.others[Path(name).suffix.lower() or "no suffix"] += 1

    def _fill(self, files: Iterable[File]) -> None:
        rows = (
            (os.fsencode(f.name), f.size, f.changed, os.fsencode(f.name.rpartition("/")[2]), self._mine(f.name))
            for f in files
        )
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO file VALUES (?, ?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    def _mine(self, name: str) -> bool:
        return self._parts == 1 or int(stable_ids([name])[0]) % self._parts == self._part - 1

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0] or 0)


def read_shard(text: str) -> tuple[int, int]:
    """Part and parts from "i/n". Raises UserError for what is no such part."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UserError(f"--shard wants i/n, such as 1/4 to 4/4 on four machines, not {text}")
    return int(part), int(parts)


def _files(rows: Iterable[tuple[bytes, int, int]]) -> Iterator[File]:
    return (File(os.fsdecode(name), size, changed) for name, size, changed in rows)


def _ends(name: bytes, wanted: bytes) -> bool:
    return (b"/" + name.lstrip(b"/")).endswith(b"/" + wanted)

"""What a library holds: its photos, where their descriptors lie, and the model that made them, in one SQLite file.

Everything that changes a library is one transaction here: a process that is killed leaves the library as it was before,
and readers go on with what they have.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError

FILE = "catalogue.sqlite"
FORMAT = 1
# Seconds to wait for another process's transaction.
PATIENCE = 60.0
SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE photo (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    width INTEGER,
    height INTEGER,
    key INTEGER UNIQUE,
    reason TEXT,
    metadata TEXT NOT NULL DEFAULT '{}'
);
"""


@dataclass(frozen=True)
class Photo:
    """A photo as it was read.

    Attributes:
        name: absolute path, or address.
        size: of the file, in bytes.
        changed: when the file was changed last, in nanoseconds since 1970.
        shape: height and width in pixels, as described; None of one that could not be read.
        reason: why it could not be read; nothing where it could.
        metadata: columns of a catalogue that was joined.
        id: its number in the library; None before it is there.
    """

    name: str
    size: int
    changed: int
    shape: tuple[int, int] | None = None
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    id: int | None = None


class Catalogue:
    """The photos of the library in a folder.

    Raises InputError for a folder that holds no library, or one of another format.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        if not path.is_file():
            raise InputError(f"no library in {folder}: python -m src.embed PHOTOS --library {folder} makes one")
        self._db = _connect(path)
        found = self.about("format")
        if found != FORMAT:
            raise InputError(f"{folder} is a library of format {found}, this version reads {FORMAT}: embed it anew")

    @classmethod
    def create(cls, folder: Path, about: Mapping[str, Any]) -> Catalogue:
        """Make an empty library, which says `about` itself what descriptors it takes."""
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{FILE}.{os.getpid()}.part"
        aside.unlink(missing_ok=True)
        db = _connect(aside)
        db.executescript(SCHEMA)
        with db:
            for key, value in {**about, "format": FORMAT}.items():
                db.execute("INSERT INTO about VALUES (?, ?)", (key, json.dumps(value)))
        db.close()
        os.replace(aside, folder / FILE)
        return cls(folder)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def about(self, key: str) -> Any:
        """What the library says about itself; None where it does not."""
        try:
            row = self._db.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self._path()} is damaged, or no library ({error})") from error
        return None if row is None else json.loads(row[0])

    def version(self) -> int:
        """Changes whenever another process changed the library."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def known(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of each photo, by its name, whether it could be read or not."""
        rows = self._db.execute("SELECT name, size, changed FROM photo")
        return {os.fsdecode(name): (size, changed) for name, size, changed in rows}

    def keys(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n,) keys in the store of all descriptors, ascending, and (n,) the photo of each."""
        rows = self._db.execute("SELECT key, id FROM photo WHERE key IS NOT NULL ORDER BY key").fetchall()
        table = np.array(rows, np.int64).reshape(-1, 2)
        return table[:, 0].copy(), table[:, 1].copy()

    def photos(self, ids: Iterable[int]) -> dict[int, Photo]:
        """Photos by their ids; those that are gone are left out."""
        asked = json.dumps(list(ids))
        rows = self._db.execute(f"SELECT {COLUMNS} FROM photo WHERE id IN (SELECT value FROM json_each(?))", (asked,))
        return {row[-1]: _photo(row) for row in rows}

    def pages(self, size: int = 4096) -> Iterator[list[tuple[Photo, int | None]]]:
        """All photos by their numbers, so many at a time, each with its descriptor's key; None of one without."""
        last = 0
        asked = f"SELECT key, {COLUMNS} FROM photo WHERE id > ? ORDER BY id LIMIT ?"
        while rows := self._db.execute(asked, (last, size)).fetchall():
            yield [(_photo(row[1:]), row[0]) for row in rows]
            last = rows[-1][-1]

    def find(self, name: str) -> tuple[Photo, int | None] | None:
        """A photo by its name, and its descriptor's key, as in `pages`; None where it is not there."""
        asked = f"SELECT key, {COLUMNS} FROM photo WHERE name = ?"
        row = self._db.execute(asked, (os.fsencode(name),)).fetchone()
        return None if row is None else (_photo(row[1:]), row[0])

    def bad(self) -> Iterator[Photo]:
        """Photos that could not be read."""
        for row in self._db.execute(f"SELECT {COLUMNS} FROM photo WHERE reason IS NOT NULL ORDER BY name"):
            yield _photo(row)

    def matching(self, filters: Mapping[str, str]) -> NDArray[np.int64]:
        """Ids of the photos whose metadata have all of these values, ascending."""
        where = " AND ".join("json_extract(metadata, ?) = ?" for _ in filters) or "TRUE"
        values = [part for key, value in filters.items() for part in (f'$."{key}"', value)]
        rows = self._db.execute(f"SELECT id FROM photo WHERE key IS NOT NULL AND {where} ORDER BY id", values)
        return np.array([row[0] for row in rows], np.int64)

    def columns(self) -> list[str]:
        """Names of the metadata that any photo has."""
        rows = self._db.execute("SELECT DISTINCT json_each.key FROM photo, json_each(photo.metadata) ORDER BY 1")
        return [row[0] for row in rows]

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction: all of it happens, or nothing."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield Change(self._db)

    def _path(self) -> str:
        return str(self._db.execute("PRAGMA database_list").fetchone()[2])


class Change:
    """What a transaction does."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def put(self, photos: Iterable[Photo], keys: Iterable[int | None]) -> None:
        """Add photos, or describe them anew, each with its descriptor's key in the store; None of one without.

        A photo that was there keeps its number and, where it is given none, its metadata.
        """
        for photo, key in zip(photos, keys, strict=True):
            height, width = photo.shape or (None, None)
            values = (os.fsencode(photo.name), photo.size, photo.changed, width, height, key, photo.reason)
            self._db.execute(
                "INSERT INTO photo (name, size, changed, width, height, key, reason) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET size = excluded.size, changed = excluded.changed, "
                "width = excluded.width, height = excluded.height, key = excluded.key, reason = excluded.reason",
                values,
            )
            if photo.metadata:
                self.describe(photo.name, photo.metadata)

    def describe(self, name: str, metadata: Mapping[str, str]) -> None:
        """Give a photo metadata instead of those it had; nothing where it is not there."""
        text = json.dumps(dict(metadata), ensure_ascii=False)
        self._db.execute("UPDATE photo SET metadata = ? WHERE name = ?", (text, os.fsencode(name)))

    def forget(self, first: int, last: int) -> int:
        """Drop the descriptors with keys from `first` to `last`, so that their photos count as changed; how many."""
        return self._db.execute(
            "UPDATE photo SET key = NULL, size = -1 WHERE key BETWEEN ? AND ?", (first, last)
        ).rowcount

    def remove(self, names: Iterable[str]) -> int:
        """Take photos out; how many were there."""
        return sum(
            self._db.execute("DELETE FROM photo WHERE name = ?", (os.fsencode(name),)).rowcount for name in names
        )


COLUMNS = "name, size, changed, height, width, reason, metadata, id"


def _photo(row: tuple[Any, ...]) -> Photo:
    name, size, changed, height, width, reason, metadata, number = row
    shape = None if height is None else (height, width)
    return Photo(os.fsdecode(name), size, changed, shape, reason, json.loads(metadata), number)


def _connect(path: Path) -> sqlite3.Connection:
    # Transactions are begun where they are needed: see Catalogue.change.
    return sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)

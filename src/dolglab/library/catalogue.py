"""What a library holds: its photos, where their descriptors lie, and the model that made them, in one SQLite file.

Everything that changes a library is one transaction here: a process that is killed leaves the library as it was before,
and readers go on with what they have.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.io import aside_of, fsync, is_utf8, sweep

FILE = "catalogue.sqlite"
FORMAT = 3
MOUNTS = "mounts"
# A key is the number of a segment and, in so many bits, a row in it.
ROW_BITS = 32
# Seconds to wait for another process's transaction.
LOCK_TIMEOUT = 60.0
SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE segment (number INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL, kind TEXT NOT NULL);
CREATE TABLE dead (key INTEGER PRIMARY KEY);
CREATE TABLE photo (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    width INTEGER,
    height INTEGER,
    key INTEGER UNIQUE,
    reason TEXT,
    metadata TEXT NOT NULL DEFAULT '{}',
    ctime INTEGER,
    digest BLOB
);
CREATE TABLE field (name TEXT NOT NULL, value TEXT NOT NULL, photo INTEGER NOT NULL, PRIMARY KEY (name, value, photo))
    WITHOUT ROWID;
CREATE INDEX field_of ON field (photo);
CREATE TRIGGER described AFTER UPDATE OF metadata ON photo BEGIN
    DELETE FROM field WHERE photo = OLD.id;
    INSERT INTO field SELECT key, value, NEW.id FROM json_each(NEW.metadata);
END;
CREATE TRIGGER undescribed AFTER DELETE ON photo BEGIN DELETE FROM field WHERE photo = OLD.id; END;
CREATE TRIGGER died AFTER UPDATE OF key ON photo WHEN OLD.key IS NOT NULL AND OLD.key IS NOT NEW.key
    BEGIN INSERT INTO dead VALUES (OLD.key); END;
CREATE TRIGGER gone AFTER DELETE ON photo WHEN OLD.key IS NOT NULL
    BEGIN INSERT INTO dead VALUES (OLD.key); END;
"""
# Columns that came after the first libraries of this format, whose own get them with the next change.
LATER = {"ctime": "INTEGER", "digest": "BLOB"}
# The ctime of a photo that is to be described anew, which no file has.
TO_DESCRIBE = -1
PUT = """
INSERT INTO photo (name, size, changed, width, height, key, reason, ctime, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET size = excluded.size, changed = excluded.changed, width = excluded.width,
    height = excluded.height, key = excluded.key, reason = excluded.reason, ctime = excluded.ctime,
    digest = excluded.digest
"""
# The different values of a column of the index, from one to the next, without a look at each photo.
DISTINCT = """
WITH RECURSIVE each (this) AS (
    SELECT MIN({column}) FROM field WHERE {where}
    UNION ALL
    SELECT (SELECT MIN({column}) FROM field WHERE {where} AND {column} > this) FROM each WHERE this IS NOT NULL
) SELECT this FROM each WHERE this IS NOT NULL LIMIT :limit
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
        ctime: when the system changed its bytes or status last, in nanoseconds; None where that is not known.
        digest: of its bytes, see `digest_of`; None where that is not known.
        id: its number in the library; None before it is there.
    """

    name: str
    size: int
    changed: int
    shape: tuple[int, int] | None = None
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    ctime: int | None = None
    digest: bytes | None = None
    id: int | None = None


# L2-normalised descriptors, (n, dim), and the keys of some, (n,).
Descriptors = NDArray[np.float32]
Keys = NDArray[np.int64]
# Values of metadata by their columns.
Columns = Mapping[str, str]
# A photo, and its descriptor's key; None of one without.
Entry = tuple[Photo, int | None]


class Segment(NamedTuple):
    """Descriptors that were added together: how many, and the kind of index over them."""

    size: int
    kind: str


@dataclass(frozen=True)
class Contents:
    """What there is to be searched: segments by their number, and the keys in them that count no longer, ascending.

    A key is a segment's number and a row in it: see `key_of`.
    """

    segments: Mapping[int, Segment]
    dead: Keys

    def __len__(self) -> int:
        return sum(segment.size for segment in self.segments.values()) - len(self.dead)

    def mask(self, number: int, allowed: Keys | None = None) -> NDArray[np.bool_]:
        """Which rows of a segment count, (size,); only `allowed` keys, ascending, where these are given."""
        mask = np.full(self.segments[number].size, allowed is None)
        if allowed is not None:
            mask[rows_in(allowed, number)] = True
        mask[rows_in(self.dead, number)] = False
        return mask

    def keys(self, numbers: Iterable[int]) -> Keys:
        """Keys in some segments that count, (n,), in the order of these, and ascending in each."""
        parts = (np.flatnonzero(self.mask(number)) + key_of(number) for number in numbers)
        return np.concatenate([np.empty(0, np.int64), *parts])


def printable(text: str) -> str:
    """A name with what a terminal would act on, and what is no Unicode, as escapes.

    >>> printable("a\\n\\udce9")
    'a\\\\n\\\\udce9'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def key_of(number: int, row: int = 0) -> int:
    """The key of a row in the segment of that number."""
    return (number << ROW_BITS) + row


def rows_in(keys: Keys, number: int) -> NDArray[np.int64]:
    """Rows of those keys, which are ascending, that are in a segment."""
    first, last = np.searchsorted(keys, (key_of(number), key_of(number + 1)))
    return keys[first:last] - key_of(number)


class Change:
    """What can be done in a transaction: see `Catalogue.change`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def put(self, photos: Iterable[Photo], keys: Iterable[int | None]) -> None:
        """Add photos, or describe them anew, each with its descriptor's key in the store; None of one without.

        A photo that was there keeps its number and, where it is given none, its metadata.
        """
        for photo, key in zip(photos, keys, strict=True):
            height, width = photo.shape or (None, None)
            values = os.fsencode(photo.name), photo.size, photo.changed, width, height, key, photo.reason
            self._db.execute(PUT, (*values, photo.ctime, photo.digest))
            if photo.metadata:
                self.set_metadata(photo.name, photo.metadata)

    def set_metadata(self, name: str, metadata: Columns) -> None:
        """Give a photo metadata instead of those it had; nothing where it is not there."""
        text = json.dumps(dict(metadata), ensure_ascii=False)
        self._db.execute("UPDATE photo SET metadata = ? WHERE name = ?", (text, os.fsencode(name)))

    def set_ctimes(self, ctimes: Iterable[tuple[str, int | None]]) -> None:
        """Note, by name, when photos' files were changed last that are still as they were described."""
        rows = ((ctime, os.fsencode(name)) for name, ctime in ctimes)
        self._db.executemany("UPDATE photo SET ctime = ? WHERE name = ?", rows)

    def mark_to_describe(self, names: Iterable[str]) -> None:
        """Have photos count as changed until they are described anew; until then they are found as they are."""
        rows = ((TO_DESCRIBE, os.fsencode(name)) for name in names)
        self._db.executemany("UPDATE photo SET ctime = ?, digest = NULL WHERE name = ?", rows)

    def set_about(self, key: str, value: object) -> None:
        """Change what the library says about itself (see `Catalogue.about`)."""
        self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, json.dumps(value)))

    def add_mounts(self, mounts: Iterable[str]) -> None:
        """Note the mount points of disks that photos are on: see `Catalogue.mounts`."""
        self.set_about(MOUNTS, sorted({*_mounts(self._db), *mounts}))

    def add_segment(self, size: int, write: Callable[[int], str]) -> Keys:
        """Make a segment part of the library that `write` puts on disk under a number; the keys in it, (size,).

        `write` gives the kind of index over it. No two segments ever have the same number.
        """
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'segment'").fetchone()
        number = 1 if row is None else int(row[0]) + 1
        self._db.execute("INSERT INTO segment VALUES (?, ?, ?)", (number, size, write(number)))
        return np.arange(size) + key_of(number)

    def drop_segment(self, number: int) -> int:
        """Take a segment out; its photos, as many as are given back, count as changed."""
        span = key_of(number), key_of(number + 1) - 1
        lost = self._db.execute("UPDATE photo SET key = NULL, size = -1 WHERE key BETWEEN ? AND ?", span).rowcount
        self._db.execute("DELETE FROM segment WHERE number = ?", (number,))
        self._db.execute("DELETE FROM dead WHERE key BETWEEN ? AND ?", span)
        return lost

    def move(self, old: Keys, new: Keys) -> None:
        """Give the descriptors with the `old` keys these new ones."""
        self._db.executemany("UPDATE photo SET key = ? WHERE key = ?", zip(new.tolist(), old.tolist(), strict=True))

    def remove(self, names: Iterable[str]) -> int:
        """Take photos out; how many were there."""
        rows = ((os.fsencode(name),) for name in names)
        return self._db.executemany("DELETE FROM photo WHERE name = ?", rows).rowcount


class Catalogue:
    """The photos of the library in a folder.

    Raises UserError for a folder that holds no library, or one of another format.
    """

    def __init__(self, folder: Path) -> None:
        self._path = path = folder / FILE
        if not is_utf8(str(path)):
            raise UserError(f"{os.fsencode(folder)!r}: a library's folder needs a UTF-8 name")
        if not path.is_file():
            raise UserError(f"no library in {folder}: dolglab embed PHOTOS --library {folder} makes one")
        self._db = _connect(path)
        found = self.about("format")
        if found != FORMAT:
            raise UserError(f"{folder} is a library of format {found}, this version reads {FORMAT}: embed it anew")

    @staticmethod
    def create(folder: Path, about: Mapping[str, Any]) -> bool:
        """Make an empty library, which says `about` itself what descriptors it takes; False where there is one now."""
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        aside = aside_of(folder / FILE)
        aside.unlink(missing_ok=True)
        db = _connect(aside)
        db.executescript(SCHEMA)
        with db:
            for key, value in {**about, "format": FORMAT}.items():
                db.execute("INSERT INTO about VALUES (?, ?)", (key, json.dumps(value)))
        db.close()
        try:
            # Two first commands at once: the library of the one that was sooner stays.
            os.link(aside, folder / FILE)
        except FileExistsError:
            return False
        except OSError:
            # A disk without links.
            os.replace(aside, folder / FILE)
        finally:
            aside.unlink(missing_ok=True)
        fsync(folder)
        return True

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def about(self, key: str) -> Any:
        """What the library says about itself; None where it does not."""
        try:
            row = self._db.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self._path} is damaged, or no library ({error})") from error
        return None if row is None else json.loads(row[0])

    def mounts(self) -> list[str]:
        """Mount points of the disks that photos were on when they were embedded, other than the system's own."""
        return _mounts(self._db)

    def version(self) -> int:
        """Changes whenever another process changed the library."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def contents(self) -> Contents:
        """What a search looks at."""
        # In one statement: between two, another process may change both.
        both = "SELECT number, size, kind FROM segment UNION ALL SELECT key, NULL, NULL FROM dead ORDER BY 1"
        segments: dict[int, Segment] = {}
        dead: list[int] = []
        for number, size, kind in self._db.execute(both):
            if kind is None:
                dead.append(number)
            else:
                segments[number] = Segment(size, kind)
        return Contents(segments, np.array(dead, np.int64))

    def photos(self, keys: Iterable[int]) -> dict[int, Photo]:
        """Photos by the keys of their descriptors; those that are gone are left out."""
        rows = self._select("key IN (SELECT value FROM json_each(?))", json.dumps(list(keys)))
        return {key: photo for photo, key in rows if key is not None}

    def find(self, numbers: Iterable[int]) -> list[Entry]:
        """The photos of those numbers; those that are gone are left out."""
        return list(self._select("id IN (SELECT value FROM json_each(?)) ORDER BY id", json.dumps(list(numbers))))

    def names(self) -> Iterator[str]:
        """The names of all photos."""
        return (os.fsdecode(name) for (name,) in self._db.execute("SELECT name FROM photo ORDER BY name"))

    def named(self, name: str) -> Entry | None:
        """A photo by its name; None where it is not there."""
        return next(self._select("name = ?", os.fsencode(name)), None)

    def pages(self, size: int = 4096) -> Iterator[list[Entry]]:
        """All photos by their numbers, so many at a time."""
        last = 0
        while page := list(self._select("id > ? ORDER BY id LIMIT ?", last, size)):
            yield page
            last = page[-1][0].id or 0

    def bad(self) -> Iterator[Photo]:
        """Photos that could not be read."""
        return (photo for photo, _ in self._select("reason IS NOT NULL ORDER BY name"))

    def matching(self, filters: Columns) -> Keys:
        """Keys of the descriptors of the photos whose metadata have all of these values, ascending."""
        among = "id IN (SELECT photo FROM field WHERE name = ? AND value = ?)"
        where = " AND ".join(["key IS NOT NULL", *[among] * len(filters)])
        values = [part for pair in filters.items() for part in pair]
        rows = self._db.execute(f"SELECT key FROM photo WHERE {where} ORDER BY key", values)
        return np.fromiter((row[0] for row in rows), np.int64)

    def columns(self) -> list[str]:
        """Names of the metadata that any photo has."""
        rows = self._db.execute(DISTINCT.format(column="name", where="TRUE"), {"limit": -1})
        return [row[0] for row in rows]

    def values(self, column: str, limit: int) -> list[str]:
        """The different values of a column, in their order; no more than `limit`."""
        rows = self._db.execute(DISTINCT.format(column="value", where="name = :name"), {"name": column, "limit": limit})
        return [row[0] for row in rows]

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction: all of it happens, or nothing."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for name in LATER.keys() - photo_columns(self._db):
                self._db.execute(f"ALTER TABLE photo ADD COLUMN {name} {LATER[name]}")
            yield Change(self._db)

    def _select(self, condition: str, *values: object) -> Iterator[Entry]:
        there = photo_columns(self._db)
        later = ", ".join(name if name in there else "NULL" for name in LATER)
        columns = f"name, size, changed, height, width, reason, metadata, {later}, id, key"
        rows = self._db.execute(f"SELECT {columns} FROM photo WHERE {condition}", values)
        for name, size, changed, height, width, reason, metadata, *rest, key in rows:
            shape = None if height is None else (height, width)
            yield Photo(os.fsdecode(name), size, changed, shape, reason, json.loads(metadata), *rest), key


def _mounts(db: sqlite3.Connection) -> list[str]:
    row = db.execute("SELECT value FROM about WHERE key = ?", (MOUNTS,)).fetchone()
    return [] if row is None else json.loads(row[0])


def photo_columns(db: sqlite3.Connection, schema: str = "main") -> set[str]:
    """Names of the columns of the table of photos, which a library of an earlier version has fewer of."""
    return {row[1] for row in db.execute(f"PRAGMA {schema}.table_info(photo)")}


def _connect(path: Path) -> sqlite3.Connection:
    # Transactions are begun where they are needed: see Catalogue.change.
    db = sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
    # A change that is larger than the cache would keep readers waiting from its middle on instead of its end.
    db.execute("PRAGMA cache_spill = OFF")
    return db

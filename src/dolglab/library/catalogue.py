"""The catalogue of a library: its photos, the keys of their descriptors, and its model, in one SQLite file.

Every change of a library is one transaction here. If a process is killed, the library stays as it was before, and
readers are not disturbed.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dolglab.data.exif import LATITUDE, LONGITUDE
from dolglab.errors import UserError
from dolglab.io import aside_of, fsync, is_utf8, sweep
from dolglab.library.change import Change
from dolglab.library.contents import Columns, Contents, Entry, Keys, Photo, Segment
from dolglab.library.filters import where_of
from dolglab.library.rows import (
    to_described,
    to_entry,
    to_kept,
    to_name,
    to_numbered_name,
    to_numbered_value,
    to_place,
    to_segment,
)
from dolglab.library.schema import (
    ADAPTED_FORMAT,
    EXIF,
    FORMAT,
    LATER,
    LOCAL,
    SCHEMA,
    DamagedError,
    Row,
    about_of,
    check_identity,
    check_local,
    check_schema,
    check_strings,
    format_of,
    keeps_local,
    mounts_of,
    photo_columns,
    value_of,
)

T = TypeVar("T")

FILE = "catalogue.sqlite"
# Errors of SQLite that do not mean that the file is damaged.
PASSING = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
}
# Seconds to wait for another process's transaction.
LOCK_TIMEOUT = 60.0
# The end of a journal that names a super-journal (SQLite's file format, section 3).
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
# Number of rows that are fetched together.
FETCHED = 1000
# The distinct values of a column, found by jumps in the index instead of a scan of all photos. `containing` is a
# pattern of LIKE.
DISTINCT = """
WITH RECURSIVE each (this) AS (
    SELECT MIN({column}) FROM field WHERE {where}
    UNION ALL
    SELECT (SELECT MIN({column}) FROM field WHERE {where} AND {column} > this) FROM each WHERE this IS NOT NULL
) SELECT this FROM each WHERE this IS NOT NULL AND this LIKE :containing ESCAPE '\\' LIMIT :limit
"""
# Photos with a descriptor. The index over keys finds those without, so that the one over names can give the order.
FOUND = "id NOT IN (SELECT id FROM photo WHERE key IS NULL)"
PLACES = """
SELECT north.photo, north.value, east.value FROM field AS north
    JOIN field AS east ON east.photo = north.photo AND east.name = :longitude
    JOIN photo ON photo.id = north.photo AND photo.key IS NOT NULL
    WHERE north.name = :latitude ORDER BY north.photo
"""


class DescribedPhotos(NamedTuple):
    """Photos with descriptors: `ids`, `changed` (see `Photo`) and `keys`, (n,) each, in ascending order of keys."""

    ids: NDArray[np.int64]
    changed: NDArray[np.int64]
    keys: Keys


class Catalogue:
    """The catalogue of the library in a folder.

    Raises UserError for a folder without a library, a library of another format, and a file with another schema or
    inconsistent contents; its methods do so for invalid rows.
    """

    def __init__(self, folder: Path) -> None:
        self._path = path = folder / FILE
        if not is_utf8(str(path)):
            raise UserError(f"{os.fsencode(folder)!r}: the name of a library's folder must be UTF-8")
        if not path.is_file():
            raise UserError(f"no library in {folder}: make one with dolglab embed PHOTOS --library {folder}")
        _check_journal(path)
        self._db = _connect(path)
        with self._undamaged():
            check_schema(self._db, "about")
            found = self.about("format")
            if found not in (FORMAT, ADAPTED_FORMAT):
                raise UserError(
                    f"{folder} is a library of format {found}, this version reads {FORMAT} and {ADAPTED_FORMAT}: embed "
                    "the photos into a new one"
                )
            check_schema(self._db)
            # With more descriptors than photos, a search would retry forever.
            rows, photos = self._db.execute(
                "SELECT (SELECT SUM(size) FROM segment) - (SELECT COUNT(*) FROM dead), (SELECT COUNT(key) FROM photo)"
            ).fetchone()
            if rows is not None and rows != photos:
                raise DamagedError(f"it has {rows} descriptors for {photos} photos")

    @staticmethod
    def create(folder: Path, about: Mapping[str, Any]) -> bool:
        """Make an empty library with its properties `about`; returns False if another process made one meanwhile."""
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        aside = aside_of(folder / FILE)
        aside.unlink(missing_ok=True)
        db = _connect(aside)
        db.executescript(SCHEMA)
        with db:
            for key, value in {**about, "format": format_of(about["identity"])}.items():
                db.execute("INSERT INTO about VALUES (?, ?)", (key, json.dumps(value)))
        db.close()
        try:
            # If two processes make the library at once, the first one wins.
            os.link(aside, folder / FILE)
        except FileExistsError:
            return False
        except OSError:
            # File systems without hard links.
            os.replace(aside, folder / FILE)
        finally:
            aside.unlink(missing_ok=True)
        fsync(folder)
        return True

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def about(self, key: str) -> Any:
        """A property of the library; None if it is not set."""
        with self._undamaged():
            return about_of(self._db, key)

    def identity(self) -> dict[str, Any]:
        """The identity of the model that made the library, see `LoadedExtractor`."""
        with self._undamaged():
            return check_identity(self.about("identity"))

    def store(self) -> dict[str, str]:
        """The options of the library's store, see `store_options`."""
        with self._undamaged():
            return check_strings(self.about("store"), "kind")

    def local(self) -> dict[str, Any] | None:
        """The kind of local features that the library keeps, see `SpatialVerifier.config`; None if it keeps none."""
        with self._undamaged():
            return check_local(self.about(LOCAL))

    def takes_exif(self) -> bool:
        """Whether date and place from EXIF become columns of photos."""
        return self.about(EXIF) is not False

    def mounts(self) -> list[str]:
        """Mount points of the disks, other than the root file system, on which photos were when they were embedded."""
        with self._undamaged():
            return mounts_of(self._db)

    def version(self) -> int:
        """A number that changes whenever another process changes the library."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def contents(self) -> Contents:
        """The segments that a search reads, and the keys in them that are deleted."""
        # In one statement, because another process may change both between two statements.
        both = "SELECT number, size, kind FROM segment UNION ALL SELECT key, NULL, NULL FROM dead ORDER BY 1"
        segments: dict[int, Segment] = {}
        dead: list[int] = []
        for number, segment in self._rows(to_segment, both):
            if segment is None:
                dead.append(number)
            else:
                segments[number] = segment
        contents = Contents(segments, np.array(dead, np.int64))
        contents.check(contents.dead)
        return contents

    def photos(self, keys: Iterable[int]) -> dict[int, Photo]:
        """Photos by the keys of their descriptors, without those that no longer exist."""
        rows = self._select("key IN (SELECT value FROM json_each(?))", json.dumps(list(keys)))
        return {key: photo for photo, key in rows if key is not None}

    def find(self, numbers: Iterable[int]) -> list[Entry]:
        """Photos with these numbers, without those that no longer exist."""
        return list(self._select("id IN (SELECT value FROM json_each(?)) ORDER BY id", json.dumps(list(numbers))))

    def kept(self, numbers: Iterable[int]) -> dict[int, bytes]:
        """The packed local features of photos by their numbers, if they have any."""
        if not keeps_local(self._db):
            return {}
        query = "SELECT photo, features FROM kept WHERE photo IN (SELECT value FROM json_each(?))"
        return dict(self._rows(to_kept, query, [json.dumps(list(numbers))]))

    def kept_size(self) -> tuple[int, int]:
        """How many photos have local features, and the size of all these in bytes."""
        if not keeps_local(self._db):
            return 0, 0
        with self._undamaged():
            count, size = self._db.execute("SELECT COUNT(*), TOTAL(LENGTH(features)) FROM kept").fetchone()
        return count, int(size)

    def names(self) -> Iterator[str]:
        """The names of all photos."""
        return self._rows(to_name, "SELECT name FROM photo ORDER BY name")

    def named(self, name: str) -> Entry | None:
        """The photo with this name, or None."""
        return next(self._select("name = ?", os.fsencode(name)), None)

    def pages(self, size: int = 4096) -> Iterator[list[Entry]]:
        """All photos in the order of their numbers, `size` at a time."""
        last = 0
        while page := list(self._select("id > ? ORDER BY id LIMIT ?", last, size)):
            yield page
            last = page[-1][0].id or 0

    def described(self) -> DescribedPhotos:
        """All photos that have descriptors."""
        query = "SELECT id, changed, key FROM photo WHERE key IS NOT NULL ORDER BY key"
        rows = np.fromiter(self._rows(to_described, query), np.dtype((np.int64, 3)))
        return DescribedPhotos(*rows.T)

    def names_of_described(self) -> Iterator[tuple[int, str]]:
        """Number and name of each photo that has a descriptor."""
        return self._rows(to_numbered_name, "SELECT id, name FROM photo WHERE key IS NOT NULL")

    def values_of(self, column: str) -> Iterator[tuple[int, str]]:
        """Number and value of each photo that has one in a column."""
        return self._rows(to_numbered_value, "SELECT photo, value FROM field WHERE name = ?", [column])

    def bad(self) -> Iterator[Photo]:
        """All photos that could not be read."""
        return (photo for photo, _ in self._select("reason IS NOT NULL ORDER BY name"))

    def matching(self, filters: Columns, folder: str = "") -> Keys:
        """Keys of the descriptors of photos that pass all filters (see `filters`), ascending.

        Args:
            folder: path of a folder that the photos must be below; all photos if empty.
        """
        where, values = where_of(filters, folder)
        query = f"SELECT key FROM photo WHERE key IS NOT NULL AND {where} ORDER BY key"
        return np.fromiter(self._rows(partial(value_of, int), query, values), np.int64)

    def count(self, filters: Columns, folder: str = "") -> int:
        """How many photos with a descriptor pass, see `matching`."""
        where, values = where_of(filters, folder)
        (count,) = self._rows(partial(value_of, int), f"SELECT COUNT(*) FROM photo WHERE {FOUND} AND {where}", values)
        return count

    def page(self, offset: int, limit: int, filters: Columns, folder: str = "") -> list[Photo]:
        """Up to `limit` photos with a descriptor that pass (see `matching`), by name, after the first `offset`."""
        where, values = where_of(filters, folder)
        # The subquery avoids reading the skipped rows.
        chosen = f"SELECT id FROM photo WHERE {FOUND} AND {where} ORDER BY name LIMIT ? OFFSET ?"
        found = self._select(f"id IN ({chosen}) ORDER BY name", *values, limit, offset)
        return [photo for photo, _ in found]

    def folders(self) -> Counter[str]:
        """Number of photos with a descriptor in each folder, by its path without a trailing slash."""
        names = self._rows(to_name, f"SELECT name FROM photo WHERE {FOUND}")
        return Counter(name.rpartition("/")[0] for name in names)

    def columns(self) -> list[str]:
        """Names of all metadata columns."""
        return self._distinct("name", "TRUE")

    def values(self, column: str, limit: int, containing: str = "") -> list[str]:
        """Up to `limit` distinct values of a column that contain a text, sorted.

        The case of ASCII letters is ignored.
        """
        return self._distinct("value", "name = :name", limit, containing, column)

    def _distinct(self, column: str, where: str, limit: int = -1, containing: str = "", name: str = "") -> list[str]:
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", containing) + "%"
        values = {"name": name, "limit": limit, "containing": pattern}
        return list(self._rows(partial(value_of, str), DISTINCT.format(column=column, where=where), values))

    def places(self) -> list[tuple[int, float, float]]:
        """Number, latitude and longitude of each photo with a descriptor and a place."""
        found = self._rows(to_place, PLACES, {"latitude": LATITUDE, "longitude": LONGITUDE})
        return [place for place in found if place is not None]

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction: it takes effect as a whole or not at all."""
        with self._undamaged(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for name in LATER.keys() - photo_columns(self._db):
                self._db.execute(f"ALTER TABLE photo ADD COLUMN {name} {LATER[name]}")
            yield Change(self._db)

    def _select(self, condition: str, *values: object) -> Iterator[Entry]:
        there = photo_columns(self._db)
        later = ", ".join(name if name in there else "NULL" for name in LATER)
        columns = f"name, size, changed, height, width, reason, metadata, {later}, id, key"
        return self._rows(to_entry, f"SELECT {columns} FROM photo WHERE {condition}", values)

    def _rows(
        self, made: Callable[[Row], T], query: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> Iterator[T]:
        """The rows of a query, converted by `made`, whose DamagedError becomes a UserError."""
        with self._undamaged():
            cursor = self._db.execute(query, values)
        while True:
            with self._undamaged():
                found = [made(row) for row in cursor.fetchmany(FETCHED)]
            if not found:
                return
            yield from found

    @contextmanager
    def _undamaged(self) -> Iterator[None]:
        """Convert errors of a damaged file to UserError."""
        try:
            yield
        except (DamagedError, UnicodeDecodeError, sqlite3.DatabaseError) as error:
            # Errors that are not SQLite's own have no code.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in PASSING:
                raise
            raise UserError(f"{self._path} is damaged, or not a library ({error})") from error


def _check_journal(path: Path) -> None:
    """Raise UserError for a journal beside the catalogue that no library writes.

    SQLite rolls back a journal before the file can be checked. The journal of a transaction over several files names
    other files, which SQLite may delete; a library's transactions change one file.
    """
    journal = path.with_name(f"{path.name}-journal")
    if journal.is_symlink():
        raise UserError(f"{journal} is a link, which no library writes: delete it")
    with suppress(FileNotFoundError), journal.open("rb") as file:
        file.seek(max(0, journal.stat().st_size - len(JOURNAL_MAGIC)))
        if file.read() == JOURNAL_MAGIC:
            raise UserError(f"{journal} is of a transaction over several files, which no library writes: delete it")


def _connect(path: Path) -> sqlite3.Connection:
    # Transactions are started explicitly, see Catalogue.change.
    db = sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
    # Otherwise a change larger than the cache would lock readers out before its end.
    db.execute("PRAGMA cache_spill = OFF")
    return db

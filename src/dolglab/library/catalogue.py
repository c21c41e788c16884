"""What a library holds: its photos, where their descriptors lie, and the model that made them, in one SQLite file.

Everything that changes a library is one transaction here: a process that is killed leaves the library as it was before,
and readers go on with what they have.
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
# Errors of SQLite that say nothing of what is in the file.
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
# The end of a journal that names further files (SQLite's file format, section 3).
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
# Rows that are fetched together.
FETCHED = 1000
# The different values of a column of the index, from one to the next, without a look at each photo.
# `containing` is a pattern of LIKE.
DISTINCT = """
WITH RECURSIVE each (this) AS (
    SELECT MIN({column}) FROM field WHERE {where}
    UNION ALL
    SELECT (SELECT MIN({column}) FROM field WHERE {where} AND {column} > this) FROM each WHERE this IS NOT NULL
) SELECT this FROM each WHERE this IS NOT NULL AND this LIKE :containing ESCAPE '\\' LIMIT :limit
"""
# Photos that have a descriptor. The index over keys knows those that have none, and the one over names all others.
FOUND = "id NOT IN (SELECT id FROM photo WHERE key IS NULL)"
PLACES = """
SELECT north.photo, north.value, east.value FROM field AS north
    JOIN field AS east ON east.photo = north.photo AND east.name = :longitude
    JOIN photo ON photo.id = north.photo AND photo.key IS NOT NULL
    WHERE north.name = :latitude ORDER BY north.photo
"""


class Described(NamedTuple):
    """Photos that have descriptors: `ids`, `changed` (see `Photo`) and `keys`, ascending, (n,) each."""

    ids: NDArray[np.int64]
    changed: NDArray[np.int64]
    keys: Keys


class Catalogue:
    """The photos of the library in a folder.

    Raises UserError for a folder that holds no library, one of another format, and a file that is laid out otherwise or
    says what none says; so do its methods for rows that none has.
    """

    def __init__(self, folder: Path) -> None:
        self._path = path = folder / FILE
        if not is_utf8(str(path)):
            raise UserError(f"{os.fsencode(folder)!r}: a library's folder needs a UTF-8 name")
        if not path.is_file():
            raise UserError(f"no library in {folder}: dolglab embed PHOTOS --library {folder} makes one")
        _check_journal(path)
        self._db = _connect(path)
        with self._undamaged():
            check_schema(self._db, "about")
            found = self.about("format")
            if found not in (FORMAT, ADAPTED_FORMAT):
                raise UserError(
                    f"{folder} is a library of format {found}, this version reads {FORMAT} and {ADAPTED_FORMAT}: embed "
                    "it anew"
                )
            check_schema(self._db)
            # Where there are more, a search would look for their photos for ever.
            rows, photos = self._db.execute(
                "SELECT (SELECT SUM(size) FROM segment) - (SELECT COUNT(*) FROM dead), (SELECT COUNT(key) FROM photo)"
            ).fetchone()
            if rows is not None and rows != photos:
                raise DamagedError(f"{rows} descriptors are {photos} photos'")

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
            for key, value in {**about, "format": format_of(about["identity"])}.items():
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
        with self._undamaged():
            return about_of(self._db, key)

    def identity(self) -> dict[str, Any]:
        """The identity of the model that made the library, see `LoadedExtractor`."""
        with self._undamaged():
            return check_identity(self.about("identity"))

    def store(self) -> dict[str, str]:
        """What the library keeps about its store, see `store_options`."""
        with self._undamaged():
            return check_strings(self.about("store"), "kind")

    def local(self) -> dict[str, Any] | None:
        """The kind of local features that the library keeps, see `SpatialVerifier.config`; None where it keeps none."""
        with self._undamaged():
            return check_local(self.about(LOCAL))

    def takes_exif(self) -> bool:
        """Whether photos get the columns of their EXIF."""
        return self.about(EXIF) is not False

    def mounts(self) -> list[str]:
        """Mount points of the disks that photos were on when they were embedded, other than the system's own."""
        with self._undamaged():
            return mounts_of(self._db)

    def version(self) -> int:
        """Changes whenever another process changed the library."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def contents(self) -> Contents:
        """What a search looks at."""
        # In one statement: between two, another process may change both.
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
        """Photos by the keys of their descriptors; those that are gone are left out."""
        rows = self._select("key IN (SELECT value FROM json_each(?))", json.dumps(list(keys)))
        return {key: photo for photo, key in rows if key is not None}

    def find(self, numbers: Iterable[int]) -> list[Entry]:
        """The photos of those numbers; those that are gone are left out."""
        return list(self._select("id IN (SELECT value FROM json_each(?)) ORDER BY id", json.dumps(list(numbers))))

    def kept(self, numbers: Iterable[int]) -> dict[int, bytes]:
        """The packed local features of photos, by their numbers, of those that have some."""
        if not keeps_local(self._db):
            return {}
        query = "SELECT photo, features FROM kept WHERE photo IN (SELECT value FROM json_each(?))"
        return dict(self._rows(to_kept, query, [json.dumps(list(numbers))]))

    def kept_size(self) -> tuple[int, int]:
        """How many photos have local features, and the bytes of these."""
        if not keeps_local(self._db):
            return 0, 0
        with self._undamaged():
            count, size = self._db.execute("SELECT COUNT(*), TOTAL(LENGTH(features)) FROM kept").fetchone()
        return count, int(size)

    def names(self) -> Iterator[str]:
        """The names of all photos."""
        return self._rows(to_name, "SELECT name FROM photo ORDER BY name")

    def named(self, name: str) -> Entry | None:
        """A photo by its name; None where it is not there."""
        return next(self._select("name = ?", os.fsencode(name)), None)

    def pages(self, size: int = 4096) -> Iterator[list[Entry]]:
        """All photos by their numbers, so many at a time."""
        last = 0
        while page := list(self._select("id > ? ORDER BY id LIMIT ?", last, size)):
            yield page
            last = page[-1][0].id or 0

    def described(self) -> Described:
        """The photos that have descriptors."""
        query = "SELECT id, changed, key FROM photo WHERE key IS NOT NULL ORDER BY key"
        rows = np.fromiter(self._rows(to_described, query), np.dtype((np.int64, 3)))
        return Described(*rows.T)

    def names_of_described(self) -> Iterator[tuple[int, str]]:
        """Number and name of each photo that has a descriptor."""
        return self._rows(to_numbered_name, "SELECT id, name FROM photo WHERE key IS NOT NULL")

    def values_of(self, column: str) -> Iterator[tuple[int, str]]:
        """Number and value of each photo that has one in a column."""
        return self._rows(to_numbered_value, "SELECT photo, value FROM field WHERE name = ?", [column])

    def bad(self) -> Iterator[Photo]:
        """Photos that could not be read."""
        return (photo for photo, _ in self._select("reason IS NOT NULL ORDER BY name"))

    def matching(self, filters: Columns, folder: str = "") -> Keys:
        """Keys of the descriptors of the photos that pass all of these filters, see `filters`, ascending.

        With a `folder`, its path, those below it alone.
        """
        where, values = where_of(filters, folder)
        query = f"SELECT key FROM photo WHERE key IS NOT NULL AND {where} ORDER BY key"
        return np.fromiter(self._rows(partial(value_of, int), query, values), np.int64)

    def count(self, filters: Columns, folder: str = "") -> int:
        """How many photos that can be found pass, see `matching`."""
        where, values = where_of(filters, folder)
        (count,) = self._rows(partial(value_of, int), f"SELECT COUNT(*) FROM photo WHERE {FOUND} AND {where}", values)
        return count

    def page(self, offset: int, limit: int, filters: Columns, folder: str = "") -> list[Photo]:
        """So many of the photos that can be found and pass, see `matching`, by their names, after `offset` of them."""
        where, values = where_of(filters, folder)
        # What is passed over is not read.
        chosen = f"SELECT id FROM photo WHERE {FOUND} AND {where} ORDER BY name LIMIT ? OFFSET ?"
        found = self._select(f"id IN ({chosen}) ORDER BY name", *values, limit, offset)
        return [photo for photo, _ in found]

    def folders(self) -> Counter[str]:
        """How many photos that can be found lie in each folder, by its path without a / at its end."""
        names = self._rows(to_name, f"SELECT name FROM photo WHERE {FOUND}")
        return Counter(name.rpartition("/")[0] for name in names)

    def columns(self) -> list[str]:
        """Names of the metadata that any photo has."""
        return self._distinct("name", "TRUE")

    def values(self, column: str, limit: int, containing: str = "") -> list[str]:
        """The different values of a column that contain a text, in their order; no more than `limit`.

        Small and capital ASCII letters are the same.
        """
        return self._distinct("value", "name = :name", limit, containing, column)

    def _distinct(self, column: str, where: str, limit: int = -1, containing: str = "", name: str = "") -> list[str]:
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", containing) + "%"
        values = {"name": name, "limit": limit, "containing": pattern}
        return list(self._rows(partial(value_of, str), DISTINCT.format(column=column, where=where), values))

    def places(self) -> list[tuple[int, float, float]]:
        """Number, latitude and longitude of each photo that can be found and says where it was taken."""
        found = self._rows(to_place, PLACES, {"latitude": LATITUDE, "longitude": LONGITUDE})
        return [place for place in found if place is not None]

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction: all of it happens, or nothing."""
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
        """What is made of each row; of a row that nothing can be made of, DamagedError becomes UserError."""
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
        """Around what reads the file: what is no catalogue is a UserError."""
        try:
            yield
        except (DamagedError, UnicodeDecodeError, sqlite3.DatabaseError) as error:
            # Of what is not SQLite's own error there is no code.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in PASSING:
                raise
            raise UserError(f"{self._path} is damaged, or no library ({error})") from error


def _check_journal(path: Path) -> None:
    """Raise UserError for a journal beside a catalogue that is none of a library's.

    SQLite acts on a journal before anything in the file can be looked at. What a transaction over several files leaves
    names further files, which SQLite may delete; a library's own is over one.
    """
    journal = path.with_name(f"{path.name}-journal")
    if journal.is_symlink():
        raise UserError(f"{journal} is a link, as no library has: delete it")
    with suppress(FileNotFoundError), journal.open("rb") as file:
        file.seek(max(0, journal.stat().st_size - len(JOURNAL_MAGIC)))
        if file.read() == JOURNAL_MAGIC:
            raise UserError(f"{journal} is of a transaction over several files, as no library has: delete it")


def _connect(path: Path) -> sqlite3.Connection:
    # Transactions are begun where they are needed: see Catalogue.change.
    db = sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
    # A change that is larger than the cache would keep readers waiting from its middle on instead of its end.
    db.execute("PRAGMA cache_spill = OFF")
    return db

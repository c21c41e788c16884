"""The photos that a user names, in a table in a temporary file, so that millions of them need no memory."""

from __future__ import annotations

import csv
import errno
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from dolglab.data.addresses import NotAllowedError
from dolglab.data.image_errors import reason
from dolglab.data.photos import LeftOut, PhotoFile, files_below, is_excluded, stored_photo
from dolglab.data.sources import IMAGE_SUFFIXES, stable_ids
from dolglab.errors import UserError
from dolglab.library.catalogue import FILE, Catalogue
from dolglab.library.change import TO_DESCRIBE
from dolglab.library.naming import last_part, marked_encoding, matching, mixed_list, read_list, spellings
from dolglab.library.schema import LATER, photo_columns

# The column of a metadata table that names the photo.
FILE_COLUMN = "file"
# `photo` is the name of a file in the library, which differs from `name` if the file has several names. Of each file of
# this shard, one name is `mine`.
SCHEMA = """
CREATE TABLE file (name BLOB PRIMARY KEY, size INTEGER, changed INTEGER, ctime INTEGER, identity TEXT, last BLOB,
    mine INTEGER, photo BLOB) WITHOUT ROWID;
CREATE INDEX last ON file (last);
CREATE TABLE described (name BLOB PRIMARY KEY, row TEXT, columns TEXT) WITHOUT ROWID;
"""
# For files with several names: the name that the library knows.
KNOWN_TWINS = """
SELECT photo, MIN(known.name) FROM file JOIN known ON known.name = file.name
LEFT JOIN known AS kept ON kept.name = photo WHERE file.name != photo AND kept.name IS NULL GROUP BY photo
"""
# New files that the library may know by a name that is not listed.
PERHAPS_KNOWN = """
SELECT file.photo, other.name FROM file LEFT JOIN known ON known.name = file.photo
JOIN known AS other ON other.size = file.size AND other.changed = file.changed
WHERE mine AND identity IS NOT NULL AND known.name IS NULL ORDER BY file.photo
"""
# Files that are new or changed. A file that may be unchanged comes with the known digest.
TODO = """
CREATE TABLE todo AS SELECT photo, file.size, file.changed, file.ctime, identity,
    CASE WHEN NOT :again AND known.key IS NOT NULL
        AND known.size = file.size AND known.changed = file.changed THEN digest END AS digest
FROM file LEFT JOIN known ON known.name = photo
WHERE mine AND (:again OR known.name IS NULL OR known.size != file.size OR known.changed != file.changed
    OR known.ctime != file.ctime OR known.ctime = :to_describe OR (:damaged AND known.key IS NULL))
ORDER BY photo
"""
FIRST_CTIMES = """
CREATE TABLE first_ctime AS SELECT photo, file.ctime AS ctime FROM file JOIN known ON known.name = photo
WHERE mine AND known.ctime IS NULL AND file.ctime IS NOT NULL
    AND known.size = file.size AND known.changed = file.changed
"""


class Listing:
    """All photos below folders and prefixes, and files named directly, sorted by name.

    A file with two paths is listed once.

    Args:
        places: folders, prefixes and files.
        listed: a file with more of them, see `read_list`; entries that do not exist are left out.
        shard: "i/n", from 1: only this part of n is listed. The part of a file depends only on its name.
        exclude: names and paths to leave out, see `is_excluded`.
        library: a library whose photos are listed instead, without `places` and `listed`.

    Attributes:
        others: number of files that are not photos, by their suffixes.
        unreadable: folders that could not be read, broken links, and entries of the list that do not exist.
        links: links out of the folders, which are not followed.

    Raises UserError for a place that does not exist, if there is no photo at all, and for an invalid shard.
    """

    def __init__(
        self,
        places: Sequence[str],
        shard: str | None = None,
        listed: str | None = None,
        exclude: Sequence[str] = (),
        library: Path | None = None,
    ) -> None:
        part, parts = (1, 1) if shard is None else read_shard(shard)
        self._stored = library is not None
        self._exclude = exclude
        self._left_out = met = LeftOut()
        self.others, self.unreadable, self.links = met.others, met.unreadable, met.links
        # A database without a name is a temporary file that the system removes when the process ends.
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {SCHEMA}")
        try:
            self._db.execute("BEGIN")
            for file in self._find(places, listed, library):
                mine = parts == 1 or int(stable_ids([file.name])[0]) % parts == part - 1
                name, last = os.fsencode(file.name), os.fsencode(last_part(file.name))
                values = (name, file.size, file.changed, file.ctime, file.identity, last, mine, name)
                self._db.execute("INSERT OR IGNORE INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            self._join_twins()
            self._db.execute("COMMIT")
            if not self._count("SELECT COUNT(*) FROM file"):
                named = ", ".join([*places, *([] if listed is None else [listed])])
                raise UserError(f"no photos in {named}: files {' '.join(sorted(IMAGE_SUFFIXES))}")
        except UserError:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of photos."""
        return self._count("SELECT COUNT(*) FROM file WHERE mine")

    def __iter__(self) -> Iterator[PhotoFile]:
        """All photos."""
        return self._files("SELECT name, size, changed, ctime, identity, NULL FROM file WHERE mine ORDER BY name")

    def close(self) -> None:
        """Close and delete the table."""
        self._db.close()

    @property
    def bytes(self) -> int:
        """Total size of all photos."""
        return self._count("SELECT SUM(size) FROM file WHERE mine")

    def twin_count(self) -> int:
        """Number of names left out because another name of the file is listed or in the library; after `compare`."""
        return self._count("SELECT COUNT(*) FROM file WHERE name != photo")

    def twins(self, limit: int) -> list[tuple[str, str]]:
        """The first of these names, each with the other name."""
        rows = self._db.execute("SELECT name, photo FROM file WHERE name != photo ORDER BY name LIMIT ?", (limit,))
        return [(os.fsdecode(name), os.fsdecode(photo)) for name, photo in rows]

    def mounts(self) -> set[str]:
        """Mount points of the photos' disks, other than the root file system."""
        device = "substr(identity, 1, instr(identity, ':'))"
        rows = self._db.execute(f"SELECT MIN(name) FROM file WHERE identity IS NOT NULL GROUP BY {device}")
        folders = (next(filter(os.path.ismount, map(str, Path(os.fsdecode(name)).parents))) for (name,) in rows)
        return {folder for folder in folders if folder != os.sep}

    def join(self, table: str, limit: int) -> tuple[int, list[str]]:
        """Read the rows of a CSV, for `metadata`; returns how many match no photo, and the first names of these.

        The column `file` contains whole paths, ends of paths, or names, see `matching`.

        Raises UserError for a table without that column, a name of several photos, and two rows for one photo.
        """
        count, strangers = 0, list[str]()
        try:
            with Path(table).open("rb") as file:
                encoding = marked_encoding(file.read(4))
            with Path(table).open(newline="", encoding=encoding) as file:
                reader = csv.DictReader(file)
                fields = reader.fieldnames or ()
                if FILE_COLUMN not in fields:
                    raise UserError(f"{table} has no column `{FILE_COLUMN}`, only {', '.join(fields) or 'none'}")
                self._db.execute("BEGIN")
                for row in reader:
                    columns = {key: value or "" for key, value in row.items() if key is not None}
                    called = columns.pop(FILE_COLUMN)
                    name = self._photo_called(called, table)
                    if name is not None:
                        self._describe(name, called, columns, table)
                        continue
                    count += 1
                    strangers += [called] if count <= limit else []
                self._db.execute("COMMIT")
        except (OSError, UnicodeError, csv.Error) as error:
            raise UserError(f"{table} cannot be read as a table: {error}") from error
        return count, strangers

    def metadata(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Names of photos with the columns of their rows in the table."""
        rows = self._db.execute("SELECT photo, columns FROM described JOIN file USING (name)")
        return ((os.fsdecode(photo), json.loads(columns)) for photo, columns in rows)

    def compare(self, library: Path, again: bool = False, damaged: bool = False) -> None:
        """Compare with the library in a folder, which may not exist yet, to find new and changed photos.

        With `again` all photos count as changed, with `damaged` those that could not be described. Later changes of the
        library do not affect the result.
        """
        catalogue = library / FILE
        if catalogue.exists():
            self._db.execute("ATTACH ? AS library", (str(catalogue),))
        else:
            self._db.execute("ATTACH ':memory:' AS library")
            self._db.execute("CREATE TABLE library.photo (name BLOB, size INTEGER, changed INTEGER, key INTEGER)")
        there = photo_columns(self._db, "library")
        later = ", ".join(name if name in there else f"NULL AS {name}" for name in LATER)
        self._db.execute(f"CREATE TEMP VIEW known AS SELECT name, size, changed, key, {later} FROM library.photo")
        self._db.execute("CREATE INDEX photo ON file (photo)")
        for candidates in (KNOWN_TWINS, PERHAPS_KNOWN):
            for name, other in self._db.execute(candidates).fetchall():
                if _same_file(name, other):
                    self._db.execute("UPDATE file SET photo = ? WHERE photo = ?", (other, name))
        self._db.execute(TODO, {"again": again, "damaged": damaged, "to_describe": TO_DESCRIBE})
        self._db.execute(FIRST_CTIMES)

    def first_ctimes(self) -> Iterator[tuple[str, int]]:
        """Photos that the library of an earlier version has without a ctime, with their ctimes; after `compare`."""
        return ((os.fsdecode(photo), ctime) for photo, ctime in self._db.execute("SELECT * FROM first_ctime"))

    def changed_count(self) -> int:
        """Number of photos that are new or changed; after `compare`."""
        return self._count("SELECT COUNT(*) FROM todo")

    def doubtful_count(self) -> int:
        """Number of these that may have unchanged bytes; after `compare`."""
        return self._count("SELECT COUNT(*) FROM todo WHERE digest IS NOT NULL")

    def changed(self, every: int = 1) -> Iterator[PhotoFile]:
        """Photos that are new or changed, or every n-th of them; after `compare`.

        Those that may have unchanged bytes come with the digest that the library knows.
        """
        return self._files("SELECT * FROM todo WHERE (rowid - 1) % ? = 0 ORDER BY rowid", every)

    def _find(self, places: Sequence[str], listed: str | None, library: Path | None) -> Iterator[PhotoFile]:
        for place in places:
            yield from files_below(place, self._exclude, self._left_out)
        for name in () if library is None else _names_in(library):
            try:
                if not is_excluded(name, self._exclude):
                    yield stored_photo(name)
            except NotAllowedError as error:
                self.unreadable.append(PermissionError(errno.EACCES, str(error), name))
            except (OSError, ValueError) as error:
                self.unreadable.append(OSError(errno.ENOENT, reason(error), name))
        for place in () if listed is None else read_list(listed):
            try:
                yield from files_below(place, self._exclude, self._left_out)
            except UserError:
                if "://" in place:
                    raise
                # A name may contain a line break only if the file exists.
                if listed is not None and "\n" in place:
                    raise mixed_list(listed) from None
                self.unreadable.append(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place))

    def _join_twins(self) -> None:
        """Choose one name of each file, preferably not that of a link."""
        self._db.execute("CREATE INDEX identity ON file (identity)")
        several = "SELECT identity FROM file WHERE identity IS NOT NULL GROUP BY identity HAVING COUNT(*) > 1"
        for (identity,) in self._db.execute(several).fetchall():
            names = [row[0] for row in self._db.execute("SELECT name FROM file WHERE identity = ?", (identity,))]
            kept = min(names, key=lambda name: (os.path.islink(name), name))
            self._db.execute(
                "UPDATE file SET photo = :kept, mine = mine AND name = :kept WHERE identity = :identity",
                {"kept": kept, "identity": identity},
            )

    def _photo_called(self, called: str, table: str) -> str | None:
        """The photo that an entry of a table names, or None. Raises UserError if several match."""
        lasts = {os.fsencode(last_part(each)) for each in spellings(called)}
        rows = [
            row for last in lasts for row in self._db.execute("SELECT name, photo FROM file WHERE last = ?", (last,))
        ]
        photos = {os.fsdecode(name): photo for name, photo in rows}
        names = matching(called, photos)
        found = {photos[name] for name in names}
        if len(found) > 1:
            raise UserError(f"{table}: {called} matches {len(found)} photos, such as {names[0]}: give more of the path")
        return os.fsdecode(found.pop()) if found else None

    def _describe(self, name: str, called: str, columns: dict[str, str], table: str) -> None:
        key = os.fsencode(name)
        for (before,) in self._db.execute("SELECT row FROM described WHERE name = ?", (key,)):
            raise UserError(f"{table} has two rows for {name}, {before} and {called}: remove one of them")
        values = key, called, json.dumps(columns, ensure_ascii=False)
        self._db.execute("INSERT INTO described VALUES (?, ?, ?)", values)

    def _count(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0] or 0)

    def _files(self, query: str, *values: int) -> Iterator[PhotoFile]:
        rows = self._db.execute(query, values)
        return (PhotoFile(os.fsdecode(name), *rest, stored=self._stored) for name, *rest in rows)


def _names_in(library: Path) -> Iterator[str]:
    with closing(Catalogue(library)) as catalogue:
        yield from catalogue.names()


def _same_file(name: bytes, other: bytes) -> bool:
    try:
        return os.path.samefile(name, other)
    except (OSError, ValueError):
        return False


def find_photos(places: Sequence[str]) -> list[PhotoFile]:
    """The photos that a `Listing` of these places has."""
    with closing(Listing(places)) as files:
        return list(files)


def read_shard(text: str) -> tuple[int, int]:
    """Part and number of parts from "i/n". Raises UserError for anything else.

    >>> read_shard("1/4")
    (1, 4)
    """
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UserError(f"--shard takes i/n, such as 1/4 to 4/4 on four machines, not {text}")
    return int(part), int(parts)

"""The photos that a person names, as a table in a temporary file: millions of them take no memory."""

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

# The column of a table that says which photo a row is of.
FILE_COLUMN = "file"
# `photo` is the name under which a library has a file, or shall have it: another one where two names are one file's.
# Of such names one is `mine`, and of no file that is another shard's.
SCHEMA = """
CREATE TABLE file (name BLOB PRIMARY KEY, size INTEGER, changed INTEGER, ctime INTEGER, identity TEXT, last BLOB,
    mine INTEGER, photo BLOB) WITHOUT ROWID;
CREATE INDEX last ON file (last);
CREATE TABLE described (name BLOB PRIMARY KEY, row TEXT, columns TEXT) WITHOUT ROWID;
"""
# Of a file that is known, the name that is.
KNOWN_TWINS = """
SELECT photo, MIN(known.name) FROM file JOIN known ON known.name = file.name
LEFT JOIN known AS kept ON kept.name = photo WHERE file.name != photo AND kept.name IS NULL GROUP BY photo
"""
# New files that may be known by a name that is not listed.
PERHAPS_KNOWN = """
SELECT file.photo, other.name FROM file LEFT JOIN known ON known.name = file.photo
JOIN known AS other ON other.size = file.size AND other.changed = file.changed
WHERE mine AND identity IS NOT NULL AND known.name IS NULL ORDER BY file.photo
"""
# The files that a library does not know, or not as they are. What it may know all the same has the known digest.
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
    """Every photo below folders and prefixes, and the files named themselves, in the order of their names.

    A file that two paths lead to is there once.

    Args:
        places: folders, prefixes and files.
        listed: a file that names more of them, see `read_list`; what it names and is not there is left out.
        shard: "i/n", from 1: of n parts only this one counts. Which part a file is in follows from its name alone.
        exclude: what is left out, see `is_excluded`.
        library: one whose photos are meant instead, with neither `places` nor a list.

    Attributes:
        others: how many files were left out since they are no photos by their names, by the ends of these.
        unreadable: folders that could not be looked into, links that lead nowhere, and what a list names that is not
            there.
        links: links out of the folders, which are not followed.

    Raises UserError for a place that is not there, where there is no photo at all, and for what is no shard.
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
        # Without a name it is a file that the system removes, however this process ends.
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
        """How many photos there are."""
        return self._count("SELECT COUNT(*) FROM file WHERE mine")

    def __iter__(self) -> Iterator[PhotoFile]:
        """Every photo."""
        return self._files("SELECT name, size, changed, ctime, identity, NULL FROM file WHERE mine ORDER BY name")

    def close(self) -> None:
        """Close and delete the table."""
        self._db.close()

    @property
    def bytes(self) -> int:
        """Size of all photos together."""
        return self._count("SELECT SUM(size) FROM file WHERE mine")

    def twin_count(self) -> int:
        """Names that are left out since another name of the same file is there, or in the library; after `compare`."""
        return self._count("SELECT COUNT(*) FROM file WHERE name != photo")

    def twins(self, limit: int) -> list[tuple[str, str]]:
        """The first of these names, each with the other one."""
        rows = self._db.execute("SELECT name, photo FROM file WHERE name != photo ORDER BY name LIMIT ?", (limit,))
        return [(os.fsdecode(name), os.fsdecode(photo)) for name, photo in rows]

    def mounts(self) -> set[str]:
        """Mount points of the disks that the photos are on, other than the system's own."""
        device = "substr(identity, 1, instr(identity, ':'))"
        rows = self._db.execute(f"SELECT MIN(name) FROM file WHERE identity IS NOT NULL GROUP BY {device}")
        folders = (next(filter(os.path.ismount, map(str, Path(os.fsdecode(name)).parents))) for (name,) in rows)
        return {folder for folder in folders if folder != os.sep}

    def join(self, table: str, limit: int) -> tuple[int, list[str]]:
        """Take in the rows of a CSV, for `metadata`; how many are for no photo, and what the first of them call theirs.

        The column `file` may hold a whole path, the end of one, or a name alone: see `matching`.

        Raises UserError for a table without that column, a name that several photos have, and two rows for one photo.
        """
        count, strangers = 0, list[str]()
        try:
            with Path(table).open("rb") as file:
                encoding = marked_encoding(file.read(4))
            with Path(table).open(newline="", encoding=encoding) as file:
                reader = csv.DictReader(file)
                fields = reader.fieldnames or ()
                if FILE_COLUMN not in fields:
                    raise UserError(f"{table} has no column `{FILE_COLUMN}`, but {', '.join(fields) or 'none'}")
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
        """Names of photos, and the columns of the rows that were joined."""
        rows = self._db.execute("SELECT photo, columns FROM described JOIN file USING (name)")
        return ((os.fsdecode(photo), json.loads(columns)) for photo, columns in rows)

    def compare(self, library: Path, again: bool = False, damaged: bool = False) -> None:
        """Compare with what the library in a folder knows now; where there is none, with nothing.

        With `again` every photo counts as changed, with `damaged` those that could not be described. What `changed`
        gives stays the same, whatever is written to the library later.
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
        """Photos that a library of an earlier version has, with the times that it has not; after `compare`."""
        return ((os.fsdecode(photo), ctime) for photo, ctime in self._db.execute("SELECT * FROM first_ctime"))

    def changed_count(self) -> int:
        """Photos that are new or changed; after `compare`."""
        return self._count("SELECT COUNT(*) FROM todo")

    def doubtful_count(self) -> int:
        """Those of them of which only the status may have changed; after `compare`."""
        return self._count("SELECT COUNT(*) FROM todo WHERE digest IS NOT NULL")

    def changed(self, every: int = 1) -> Iterator[PhotoFile]:
        """Photos that are new or changed, or one of so many of them; after `compare`.

        Of those of which only the status may have changed, the digest is the one that the library knows.
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
                # A file's name may hold a line's end, but then the file is there.
                if listed is not None and "\n" in place:
                    raise mixed_list(listed) from None
                self.unreadable.append(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place))

    def _join_twins(self) -> None:
        """Have one name of each file count: no link's, where there is another."""
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
        """The one photo that a table may call so. Raises UserError for several."""
        lasts = {os.fsencode(last_part(each)) for each in spellings(called)}
        rows = [
            row for last in lasts for row in self._db.execute("SELECT name, photo FROM file WHERE last = ?", (last,))
        ]
        photos = {os.fsdecode(name): photo for name, photo in rows}
        names = matching(called, photos)
        found = {photos[name] for name in names}
        if len(found) > 1:
            raise UserError(
                f"{table}: {len(found)} photos are called {called}, such as {names[0]}: write more of the path"
            )
        return os.fsdecode(found.pop()) if found else None

    def _describe(self, name: str, called: str, columns: dict[str, str], table: str) -> None:
        key = os.fsencode(name)
        for (before,) in self._db.execute("SELECT row FROM described WHERE name = ?", (key,)):
            raise UserError(f"{table}: two rows are for {name}, {before} and {called}: leave one of them out")
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
    """A few photos, as `Listing` finds them."""
    with closing(Listing(places)) as files:
        return list(files)


def read_shard(text: str) -> tuple[int, int]:
    """Part and parts from "i/n". Raises UserError for what is no such part.

    >>> read_shard("1/4")
    (1, 4)
    """
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UserError(f"--shard wants i/n, such as 1/4 to 4/4 on four machines, not {text}")
    return int(part), int(parts)

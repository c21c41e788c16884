"""The photos that a person names, as a table in a temporary file: millions of them take no memory."""

from __future__ import annotations

import csv
import errno
import os
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

from dolglab.data.image_errors import reason
from dolglab.data.photos import PhotoFile, files_below
from dolglab.data.sources import IMAGE_SUFFIXES, stable_ids
from dolglab.errors import UserError
from dolglab.library.catalogue import FILE

# Bytes of a list that are read at a time.
CHUNK = 1 << 20
# The column of a table that says which photo a row is of.
FILE_COLUMN = "file"
SCHEMA = """
CREATE TABLE file (name BLOB PRIMARY KEY, size INTEGER, changed INTEGER, base BLOB, mine INTEGER) WITHOUT ROWID;
CREATE INDEX base ON file (base);
"""
# The files that a library does not know, or not as they are.
TODO = """
CREATE TABLE todo AS SELECT file.name, file.size, file.changed
FROM file LEFT JOIN library.photo AS known USING (name)
WHERE mine AND (known.name IS NULL OR known.size != file.size OR known.changed != file.changed) ORDER BY file.name
"""


class Listing:
    """Every photo below folders and prefixes, and the files named themselves, in the order of their names.

    Args:
        places: folders, prefixes and files.
        listed: a file that names more of them, see `read_list`; what it names and is not there is left out.
        shard: "i/n", from 1: of n parts only this one counts. Which part a file is in follows from its name alone.

    Attributes:
        others: how many files were left out since they are no photos by their names, by the ends of these.
        unreadable: folders that could not be looked into, and what a list names that is not there.

    Raises UserError for a place that is not there, where there is no photo at all, and for what is no shard.
    """

    def __init__(self, places: Sequence[str], shard: str | None = None, listed: str | None = None) -> None:
        part, parts = (1, 1) if shard is None else read_shard(shard)
        self.unreadable: list[OSError] = []
        self.others: Counter[str] = Counter()
        self._folder = tempfile.TemporaryDirectory(prefix="listing-")
        self._db = sqlite3.connect(Path(self._folder.name) / "files.sqlite", isolation_level=None)
        self._db.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {SCHEMA}")
        try:
            self._db.execute("BEGIN")
            for file in self._find(places, listed):
                mine = parts == 1 or int(stable_ids([file.name])[0]) % parts == part - 1
                base = os.fsencode(file.name.rpartition("/")[2])
                values = (os.fsencode(file.name), file.size, file.changed, base, mine)
                self._db.execute("INSERT OR IGNORE INTO file VALUES (?, ?, ?, ?, ?)", values)
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
        return self._files("SELECT name, size, changed FROM file WHERE mine ORDER BY name")

    def close(self) -> None:
        """Close and delete the table."""
        self._db.close()
        self._folder.cleanup()

    @property
    def bytes(self) -> int:
        """Size of all photos together."""
        return self._count("SELECT SUM(size) FROM file WHERE mine")

    def metadata(self, table: str | None) -> Iterator[tuple[str | None, dict[str, str]]]:
        """The columns of each row of a CSV, and the name of the photo that it is of; None where it is of none.

        The column `file`, which is not among these, may hold a whole path, the end of one, or a name alone.

        Raises UserError for a table without that column, and for a name that several photos have.
        """
        if table is None:
            return
        try:
            with Path(table).open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                fields = reader.fieldnames or ()
                if FILE_COLUMN not in fields:
                    raise UserError(f"{table} has no column `{FILE_COLUMN}`, but {', '.join(fields) or 'none'}")
                for row in reader:
                    columns = {key: value or "" for key, value in row.items() if key is not None}
                    name = columns.pop(FILE_COLUMN)
                    # Whose path is this, or ends with this, from a whole name on.
                    wanted = os.fsencode(name.strip("/"))
                    rows = self._db.execute("SELECT name FROM file WHERE base = ?", (wanted.rpartition(b"/")[2],))
                    paths = (path for (path,) in rows if (b"/" + path.lstrip(b"/")).endswith(b"/" + wanted))
                    found = [os.fsdecode(path) for path in paths]
                    if len(found) > 1:
                        called = f"{len(found)} photos are called {name}, such as {found[0]}"
                        raise UserError(f"{table}: {called}: write more of the path")
                    yield found[0] if found else None, columns
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{table} cannot be read as a table: {error}") from error

    def compare(self, library: Path) -> None:
        """Compare with what the library in a folder knows now; where there is none, with nothing.

        What `changed` gives stays the same, whatever is written to the library later.
        """
        catalogue = library / FILE
        if catalogue.exists():
            self._db.execute("ATTACH ? AS library", (str(catalogue),))
        else:
            self._db.execute("ATTACH ':memory:' AS library")
            self._db.execute("CREATE TABLE library.photo (name BLOB, size INTEGER, changed INTEGER)")
        self._db.execute(TODO)

    def changed_count(self) -> int:
        """Photos that are new or changed; after `compare`."""
        return self._count("SELECT COUNT(*) FROM todo")

    def changed(self, every: int = 1) -> Iterator[PhotoFile]:
        """Photos that are new or changed, or one of so many of them; after `compare`."""
        return self._files("SELECT * FROM todo WHERE (rowid - 1) % ? = 0 ORDER BY rowid", every)

    def _find(self, places: Sequence[str], listed: str | None) -> Iterator[PhotoFile]:
        for place in places:
            yield from files_below(place, self._skipped, self.unreadable.append)
        for place in () if listed is None else read_list(listed):
            try:
                yield from files_below(place, self._skipped, self.unreadable.append)
            except UserError:
                if "://" in place:
                    raise
                self.unreadable.append(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place))

    def _skipped(self, name: str) -> None:
        self.others[Path(name).suffix.lower() or "no suffix"] += 1

    def _count(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0] or 0)

    def _files(self, query: str, *values: int) -> Iterator[PhotoFile]:
        rows = self._db.execute(query, values)
        return (PhotoFile(os.fsdecode(name), size, changed) for name, size, changed in rows)


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


def read_list(path: str, chunk: int = CHUNK) -> Iterator[str]:
    """Paths and addresses in a text file, or in standard input for "-", as `find` prints them.

    One a line; with NUL in the file (`find -print0`) one from NUL to NUL. It is read `chunk` bytes at a time.
    Raises UserError for a file that cannot be read.
    """
    try:
        with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
            yield from (os.fsdecode(name) for name in _split(file, chunk) if name)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error


def _split(file: IO[bytes], chunk: int) -> Iterator[bytes]:
    rest, lines = b"", None
    while data := file.read(chunk):
        lines = b"\0" not in data if lines is None else lines
        *whole, rest = (rest + data).split(b"\n" if lines else b"\0")
        yield from (name.removesuffix(b"\r") for name in whole) if lines else whole
    yield rest

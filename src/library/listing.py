"""The photos that a person names, as a table in a temporary file: millions of them take no memory."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from src.contracts import InputError
from src.data.sources import stable_ids
from src.library.catalogue import FILE
from src.library.photos import File, files_below, listed_in, nothing_found

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

    Raises InputError for a place that is not there, where there is no photo at all, and for what is no shard.
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
        except InputError:
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
            except InputError:
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
    """Part and parts from "i/n". Raises InputError for what is no such part."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"--shard wants i/n, such as 1/4 to 4/4 on four machines, not {text}")
    return int(part), int(parts)


def _files(rows: Iterable[tuple[bytes, int, int]]) -> Iterator[File]:
    return (File(os.fsdecode(name), size, changed) for name, size, changed in rows)


def _ends(name: bytes, wanted: bytes) -> bool:
    return (b"/" + name.lstrip(b"/")).endswith(b"/" + wanted)

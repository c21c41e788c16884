"""Changes of a library in one transaction on its catalogue."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dolglab.library.contents import Columns, Keys, Photo, key_of, score_column_of
from dolglab.library.schema import EXIF, KEPT, LOCAL, MOUNTS, about_of, check_segment, format_of, keeps_local, mounts_of

# The ctime of a photo that is to be described again; no file has it.
TO_DESCRIBE = -1
PUT = """
INSERT INTO photo (name, size, changed, width, height, key, reason, ctime, digest, stored_width, stored_height)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET size = excluded.size, changed = excluded.changed, width = excluded.width,
    height = excluded.height, key = excluded.key, reason = excluded.reason, ctime = excluded.ctime,
    digest = excluded.digest, stored_width = excluded.stored_width, stored_height = excluded.stored_height
"""
# The user's columns in a row of `photo`: those that the file's EXIF does not have, or has with another value.
GIVEN = """(
    SELECT json_group_object(each.key, each.value) FROM json_each(photo.metadata) AS each WHERE each.value IS NOT (
        SELECT own.value FROM json_each(COALESCE(photo.exif, '{}')) AS own WHERE own.key = each.key
    )
)"""
# A patch has the new values, and null for those to remove.
ADD_METADATA = f"""
UPDATE photo SET metadata = json_patch(COALESCE(exif, '{{}}'), json_patch({GIVEN}, :patch)) WHERE name = :name
"""
SET_EXIF = f"UPDATE photo SET exif = :exif, metadata = json_patch(:exif, {GIVEN}) WHERE name = :name"
FORGET_EXIF = f"UPDATE photo SET exif = NULL, metadata = {GIVEN} WHERE exif IS NOT NULL"


class Change:
    """The changes that a transaction can contain, see `Catalogue.change`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def put(
        self, photos: Sequence[Photo], keys: Iterable[int | None], local: Sequence[bytes | None] | None = None
    ) -> None:
        """Add photos or update them, each with its descriptor's key in the store, or None.

        An updated photo keeps its number and, unless it comes with others, the user's columns. `local` are the photos'
        packed local features, if the library keeps any; they replace older ones.
        """
        takes_exif = about_of(self._db, EXIF) is not False
        for photo, key, features in zip(photos, keys, local or [None] * len(photos), strict=True):
            (height, width), (high, wide) = photo.shape or (None, None), photo.stored or (None, None)
            values = os.fsencode(photo.name), photo.size, photo.changed, width, height, key, photo.reason
            self._db.execute(PUT, (*values, photo.ctime, photo.digest, wide, high))
            self._put_local(photo.name, features)
            if takes_exif and photo.exif is not None:
                self.set_exif(photo.name, photo.exif)
            if given := photo.given:
                self.set_metadata(photo.name, given)

    def keep_local(self, config: Mapping[str, object]) -> None:
        """Have the library keep local features of this kind; those of another kind are deleted."""
        if not keeps_local(self._db):
            for statement in KEPT.split("\n"):
                self._db.execute(statement)
        if about_of(self._db, LOCAL) != config:
            self._db.execute("DELETE FROM kept")
            self.set_about(LOCAL, config)

    def _put_local(self, name: str, features: bytes | None) -> None:
        """Replace a photo's local features."""
        if keeps_local(self._db):
            value = os.fsencode(name)
            self._db.execute("DELETE FROM kept WHERE photo = (SELECT id FROM photo WHERE name = ?)", (value,))
            if features is not None:
                self._db.execute("INSERT INTO kept SELECT id, ? FROM photo WHERE name = ?", (features, value))

    def set_metadata(self, name: str, metadata: Columns) -> None:
        """Replace a photo's user columns; its columns from EXIF stay unless they have the same name.

        Does nothing if the library does not have the photo.
        """
        text = json.dumps(dict(metadata), ensure_ascii=False)
        self._db.execute(
            "UPDATE photo SET metadata = json_patch(COALESCE(exif, '{}'), ?) WHERE name = ?", (text, os.fsencode(name))
        )

    def add_metadata(self, name: str, metadata: Columns) -> None:
        """Add columns to a photo's user columns; they replace those of the same name, and others stay.

        An empty value removes the user's value, so that one from EXIF appears again. Does nothing if the library does
        not have the photo.
        """
        # A name from the user is no longer one by neighbours.
        scores = dict.fromkeys(map(score_column_of, metadata))
        patch = scores | {column: value or None for column, value in metadata.items()}
        text = json.dumps(patch, ensure_ascii=False)
        self._db.execute(ADD_METADATA, {"patch": text, "name": os.fsencode(name)})

    def set_exif(self, name: str, exif: Columns) -> None:
        """Replace a photo's columns from EXIF; the user's columns stay and take precedence.

        Does nothing if the library does not have the photo.
        """
        text = json.dumps(dict(exif), ensure_ascii=False)
        self._db.execute(SET_EXIF, {"exif": text, "name": os.fsencode(name)})

    def set_stored(self, name: str, stored: tuple[int, int]) -> None:
        """Store the height and width of the picture in a photo's file."""
        values = (*stored, os.fsencode(name))
        self._db.execute("UPDATE photo SET stored_height = ?, stored_width = ? WHERE name = ?", values)

    def take_exif(self, taken: bool) -> None:
        """Add columns from EXIF from now on, or delete all of them and add none."""
        self.set_about(EXIF, taken)
        if not taken:
            self._db.execute(FORGET_EXIF)

    def set_ctimes(self, ctimes: Iterable[tuple[str, int | None]]) -> None:
        """Store the ctimes of files that have not changed since they were described, by name."""
        rows = ((ctime, os.fsencode(name)) for name, ctime in ctimes)
        self._db.executemany("UPDATE photo SET ctime = ? WHERE name = ?", rows)

    def mark_to_describe(self, names: Iterable[str]) -> None:
        """Treat photos as changed until they are described again; searches find them as before meanwhile."""
        rows = ((TO_DESCRIBE, os.fsencode(name)) for name in names)
        self._db.executemany("UPDATE photo SET ctime = ?, digest = NULL WHERE name = ?", rows)

    def set_about(self, key: str, value: object) -> None:
        """Set a property of the library (see `Catalogue.about`)."""
        self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, json.dumps(value)))

    def set_identity(self, identity: Mapping[str, Any]) -> None:
        """Set the identity of the model (see `LoadedExtractor`) and the format that it implies."""
        self.set_about("identity", identity)
        self.set_about("format", format_of(identity))

    def add_mounts(self, mounts: Iterable[str]) -> None:
        """Store mount points of disks with photos, see `Catalogue.mounts`."""
        self.set_about(MOUNTS, sorted({*mounts_of(self._db), *mounts}))

    def add_segment(self, size: int, write: Callable[[int], str]) -> Keys:
        """Add a segment that `write` stores under a number that was never used before; returns its keys, (size,).

        `write` returns the kind of the segment's index.
        """
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'segment'").fetchone()
        number = 1 if row is None else check_segment(row[0]) + 1
        self._db.execute("INSERT INTO segment VALUES (?, ?, ?)", (number, size, write(number)))
        return np.arange(size) + key_of(number)

    def set_kind(self, number: int, kind: str) -> None:
        """Store the kind of a segment's index."""
        self._db.execute("UPDATE segment SET kind = ? WHERE number = ?", (kind, number))

    def drop_segment(self, number: int) -> int:
        """Delete a segment and treat its photos as changed; returns how many they are."""
        span = key_of(number), key_of(number + 1) - 1
        lost = self._db.execute("UPDATE photo SET key = NULL, size = -1 WHERE key BETWEEN ? AND ?", span).rowcount
        self._db.execute("DELETE FROM segment WHERE number = ?", (number,))
        self._db.execute("DELETE FROM dead WHERE key BETWEEN ? AND ?", span)
        return lost

    def move(self, old: Keys, new: Keys) -> None:
        """Change the keys of descriptors from `old` to `new`."""
        self._db.executemany("UPDATE photo SET key = ? WHERE key = ?", zip(new.tolist(), old.tolist(), strict=True))

    def remove(self, names: Iterable[str]) -> int:
        """Remove photos; returns how many the library had."""
        rows = ((os.fsencode(name),) for name in names)
        return self._db.executemany("DELETE FROM photo WHERE name = ?", rows).rowcount

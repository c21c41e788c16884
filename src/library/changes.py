"""What can be done to a catalogue, within one transaction."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from src.library.contents import Photo, Segment, key_of


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

    def say(self, key: str, value: object) -> None:
        """Have the library say something else about itself."""
        self._db.execute("UPDATE about SET value = ? WHERE key = ?", (json.dumps(value), key))

    def add_segment(self, number: int, segment: Segment) -> None:
        """Have a segment, which is on disk, belong to the library."""
        self._db.execute("INSERT INTO segment VALUES (?, ?, ?)", (number, *segment))

    def drop_segment(self, number: int) -> int:
        """Take a segment out; its photos, as many as are given back, count as changed."""
        span = key_of(number), key_of(number + 1) - 1
        lost = self._db.execute("UPDATE photo SET key = NULL, size = -1 WHERE key BETWEEN ? AND ?", span).rowcount
        self._db.execute("DELETE FROM segment WHERE number = ?", (number,))
        self._db.execute("DELETE FROM dead WHERE key BETWEEN ? AND ?", span)
        return lost

    def move(self, old: NDArray[np.int64], new: NDArray[np.int64]) -> None:
        """Give the descriptors with the `old` keys these new ones."""
        pairs = zip(new.tolist(), old.tolist(), strict=True)
        self._db.executemany("UPDATE photo SET key = ? WHERE key = ?", pairs)

    def remove(self, names: Iterable[str]) -> int:
        """Take photos out; how many were there."""
        return sum(
            self._db.execute("DELETE FROM photo WHERE name = ?", (os.fsencode(name),)).rowcount for name in names
        )

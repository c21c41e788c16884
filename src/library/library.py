"""A library: photos that can be searched by photo, added to, and taken from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.library.catalogue import FILE, Catalogue, Change, Photo
from src.library.store import SegmentStore
from src.locks import hold, release

LOCK = ".lock"
# What of a model's identity must be the library's.
IDENTITY = ("model", "dim", "scales", "max_side")


@dataclass(frozen=True)
class Answer:
    """A photo that a search found, and the cosine of its descriptor and the query's."""

    photo: Photo
    cosine: float


class Library:
    """The library in a folder.

    Args:
        folder: where it is.
        identity: of the model whose descriptors it shall take and be asked with (see `ready_model`); None for `check`
            later.

    Raises InputError where there is none, or one that another model made.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.catalogue = Catalogue(self.folder)
        self.identity: dict[str, Any] = self.catalogue.about("identity")
        if identity is not None:
            self.check(identity)
        self.store = SegmentStore(self.folder, self.identity["dim"])
        self._version = -1
        self._keys, self._ids = np.empty(0, np.int64), np.empty(0, np.int64)

    @classmethod
    def open(cls, folder: str | Path, identity: Mapping[str, Any]) -> Library:
        """The library in `folder`, made where there is none. Raises InputError as the library does."""
        if not (Path(folder) / FILE).exists():
            Catalogue.create(Path(folder), {"identity": dict(identity)}).close()
        return cls(folder, identity)

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raise InputError for another model than the one that made the library."""
        for key in IDENTITY:
            if self.identity[key] != identity[key]:
                raise InputError(
                    f"{self.folder} was made by {self.identity['title']} ({key} {self.identity[key]}), not by "
                    f"{identity['title']} ({key} {identity[key]}): give the same --model, --scales and --max-side, or "
                    "another --library"
                )

    def forget_damaged(self) -> int:
        """Have the photos count as changed whose descriptors cannot be read from disk; how many they are."""
        damaged = self.store.damaged(self.catalogue.keys()[0])
        with self.catalogue.change() as change:
            lost = sum(change.forget(first, last) for first, last in damaged)
        self._version = -1
        return lost

    def __len__(self) -> int:
        """Photos that can be found."""
        self._refresh()
        return len(self._ids)

    def add(self, photos: Sequence[Photo], descriptors: NDArray[np.float32]) -> None:
        """Add photos with their descriptors, (n, dim), or put these in the place of older ones; all of them or none."""
        if not len(photos):
            return
        keys = self.store.write(descriptors)
        with self.catalogue.change() as change:
            change.put(photos, keys.tolist())
        self._version = -1

    def note_bad(self, photos: Iterable[Photo]) -> None:
        """Keep which photos could not be read, and why; an older descriptor of theirs is dropped."""
        found = list(photos)
        with self.catalogue.change() as change:
            change.put(found, [None] * len(found))
        self._version = -1

    def remove(self, names: Iterable[str]) -> int:
        """Take photos out by name; how many were there."""
        with self.catalogue.change() as change:
            count = change.remove(names)
        self._version = -1
        return count

    def search(
        self, queries: NDArray[np.float32], count: int = 20, filters: Mapping[str, str] | None = None
    ) -> list[list[Answer]]:
        """The best answers to each query's descriptor, (Q, dim), of the photos whose metadata pass the filters.

        Raises InputError for a column that no photo has.
        """
        self._refresh()
        keys, ids = self._keys, self._ids
        if filters:
            self._check_columns(filters)
            keep = np.isin(ids, self.catalogue.matching(filters))
            keys, ids = keys[keep], ids[keep]
        if not len(keys):
            return [[] for _ in queries]
        try:
            cosines, found = self.store.search(queries, min(count, len(keys)), keys)
        except InputError:
            # Another process may have taken out what was looked for.
            if self.catalogue.version() == self._version:
                raise
            return self.search(queries, count, filters)
        numbers = ids[np.searchsorted(keys, found)]
        photos = self.catalogue.photos(np.unique(numbers).tolist())
        return [
            [Answer(photos[n], float(c)) for n, c in zip(row.tolist(), line, strict=True) if n in photos]
            for row, line in zip(numbers, cosines, strict=True)
        ]

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction on the catalogue, which this library's next search knows of."""
        try:
            with self.catalogue.change() as change:
                yield change
        finally:
            self._version = -1

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While one process writes, another one does not. Raises InputError where one does."""
        lock = self.folder / LOCK
        if not hold(lock, needed=True):
            raise InputError(f"another process writes to {self.folder}: wait for it to end")
        try:
            yield
            self.store.sweep(self.catalogue.keys()[0])
        finally:
            release(lock)

    def _refresh(self) -> None:
        """Take in what other processes have changed."""
        version = self.catalogue.version()
        if version != self._version:
            self._keys, self._ids = self.catalogue.keys()
            self._version = version

    def _check_columns(self, filters: Mapping[str, str]) -> None:
        known = self.catalogue.columns()
        for column in filters:
            if column not in known:
                raise InputError(f"no photo has {column}: the columns are {', '.join(known) or 'none'} (--metadata)")

"""A library of photos: search by descriptor, add, remove."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import LocalFeatures
from dolglab.data.addresses import allow, check_allowed
from dolglab.errors import UserError
from dolglab.io import acquire, release, sweep
from dolglab.library import stores
from dolglab.library.catalogue import FILE, Catalogue
from dolglab.library.change import Change
from dolglab.library.contents import ROW_BITS, Answer, Columns, Contents, Descriptors, Keys, Photo
from dolglab.library.naming import printable
from dolglab.library.packing import unpack
from dolglab.library.stores import LIMITS, SegmentLimits
from dolglab.retrieval.adapter import Adapter, read_adapter, write_adapter

LOCK = ".lock"
ADAPTER = "adapter.safetensors"
# Number of descriptors that are read at a time.
BATCH = 8192
# Largest value of an L2-normalised descriptor, or of the dot product of two, with rounding.
MAX_VALUE = 1.01
# The keys in which identities of model and library must agree; `CHANGEABLE` may change if all are described again.
CHANGEABLE = ("scales", "max_side", "colour", "decoding")
IDENTITY = ("model", "adapter", "dim", *CHANGEABLE)


def model_source(identity: Mapping[str, Any]) -> str:
    """The source of a library's network, by its identity.

    Raises NotAllowedError for a remote source that is not in the cache and that the user does not allow.
    """
    source = identity["source"]
    if "://" in source:
        from dolglab.sharing.hub import is_cached

        if not is_cached(source):
            check_allowed(source)
    return source


def adapter_of(folder: Path, identity: Mapping[str, Any]) -> Adapter | None:
    """The adapter of a library's descriptors, by its identity; None if they come directly from the network.

    Raises UserError if the file is missing, damaged, or of another adapter.
    """
    if identity.get("adapter") is None:
        return None
    adapter = read_adapter(folder / ADAPTER)
    if adapter.fingerprint != identity["adapter"]:
        raise UserError(f"{folder / ADAPTER} is not the adapter of {folder}: restore it, or embed a new library")
    return adapter


class LibraryBusy(UserError):
    """Another process writes to the library."""


class LibraryLinked(UserError):
    """A part of the library is a link, so that files elsewhere would be written or deleted."""


class Library:
    """The library in a folder.

    Args:
        folder: the library's folder.
        identity: identity of the model whose descriptors will be added and searched for (see `LoadedExtractor`); None
            to call `check` later.
        limits: when segments in faiss's files are indexed and merged.

    Raises UserError if there is no library, or if another model made it.
    """

    def __init__(
        self, folder: str | Path, identity: Mapping[str, Any] | None = None, limits: SegmentLimits = LIMITS
    ) -> None:
        self.folder = Path(folder)
        self.limits = limits
        self.catalogue = Catalogue(self.folder)
        self.identity = self.catalogue.identity()
        if identity is not None:
            self.check(identity)
        self.store = stores.open_store(self.folder, self.identity["dim"], self.catalogue.store(), limits)
        # The catalogue's version and contents when they were last read.
        self._known: tuple[int, Contents] | None = None

    @classmethod
    def open(
        cls, folder: str | Path, identity: Mapping[str, Any], store: str | None = None, limits: SegmentLimits = LIMITS
    ) -> Library:
        """The library in `folder`, which is created if needed.

        `store` is the place of its descriptors, see `store_options`; None for the library's own, or flat segments in a
        new one. Raises UserError like the constructor, and if its descriptors are in another store.
        """
        if store is not None and "://" in store:
            allow([store])
        made = not (Path(folder) / FILE).exists() and Catalogue.create(
            Path(folder), {"identity": dict(identity), "store": stores.store_options(store)}
        )
        try:
            library = cls(folder, identity, limits)
        except UserError:
            if made:
                (Path(folder) / FILE).unlink()
            raise
        options = library.catalogue.store()
        there = options.get("uri", stores.store_place(options))
        if store not in (None, there):
            raise UserError(
                f"{library.folder} keeps its descriptors in {there}, not {store}: omit --store or use another --library"
            )
        return library

    def close(self) -> None:
        """Close its files and connections."""
        self.store.close()
        self.catalogue.close()

    def is_outdated(self) -> bool:
        """Whether another process has adapted the library since it was opened, so that it must be opened again."""
        return self.catalogue.identity().get("adapter") != self.identity.get("adapter")

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raise UserError unless this is the model that made the library."""
        if key := self.differs_in(identity):
            if key == "adapter":
                raise UserError(f"{self.folder} was adapted by another process: run the same command again")
            mine, theirs = self.identity[key], identity[key]
            made = f"{key} {mine}, not {theirs}" if key != "model" else f"{self.identity['title']} ({mine})"
            option = f"--{key.replace('_', '-')}" if key in CHANGEABLE else "--model"
            anew = "--again without photos, which describes all again" if key in CHANGEABLE else "another --library"
            raise UserError(f"{self.folder} was made with {made}: use the same {option} or none, or {anew}")

    def differs_in(self, identity: Mapping[str, Any]) -> str | None:
        """The first key in which a model's identity differs from this library's; None if they agree."""
        return next((key for key in IDENTITY if self.identity.get(key) != identity.get(key)), None)

    def describe_anew(self, names: Iterable[str], identity: Mapping[str, Any]) -> None:
        """Treat photos as changed until they are described again; `CHANGEABLE` of the identity applies from now on."""
        self.identity = {**self.identity, **{key: identity[key] for key in CHANGEABLE}}
        with self.change() as change:
            change.mark_to_describe(names)
            change.set_identity(self.identity)

    def adapter(self) -> Adapter | None:
        """The adapter of its descriptors, see `adapter_of`."""
        return adapter_of(self.folder, self.identity)

    def check_adaptable(self) -> None:
        """Raise UserError if its descriptors are adapted already, or are in a store that does not support it."""
        if self.identity.get("adapter") is not None:
            raise UserError(f"{self.folder} is adapted already: make another library with dolglab embed")
        self.store.resized(self.identity["dim"])

    def adapt(self, adapter: Adapter) -> None:
        """Apply an adapter to all descriptors, in one transaction; from now on the library works with adapted ones.

        Raises UserError for an adapter of another model, and like `check_adaptable`.
        """
        self.check_adaptable()
        adapter.check(self.identity["model"], self.identity["dim"])
        store, contents = self.store.resized(adapter.dim), self.contents()
        identity = {**self.identity, "adapter": adapter.fingerprint, "dim": adapter.dim}
        write_adapter(self.folder / ADAPTER, adapter)
        with self.change() as change:
            for number in contents.segments:
                old = contents.keys([number])
                adapted = adapter(self.descriptors(old))
                if len(old):
                    change.move(old, change.add_segment(len(old), partial(store.write, descriptors=adapted)))
                change.drop_segment(number)
            change.set_identity(identity)
        self.store.close()
        self.store, self.identity = store, identity

    def forget_damaged(self) -> int:
        """Treat photos whose descriptors cannot be read as changed; returns how many they are.

        If only the index of a segment cannot be read, it is built again.
        """
        damaged = self.store.damaged(self.contents())
        with self.change() as change:
            lost = sum(change.drop_segment(number) for number in damaged)
        self._index_segments(self.store.outdated(self.contents(), look=True))
        return lost

    def __len__(self) -> int:
        """Number of photos with a descriptor."""
        return len(self.contents())

    def contents(self) -> Contents:
        """The current contents, including changes by other processes; the same object until something changes.

        Raises UserError if another process has adapted the library.
        """
        # Assigned together, for threads that search at the same time.
        known, version = self._known, self.catalogue.version()
        if known is None or known[0] != version:
            if self.is_outdated():
                raise UserError(f"{self.folder} was adapted by another process: run the same command again")
            known = self._known = version, self.catalogue.contents()
        return known[1]

    def add(
        self, photos: Sequence[Photo], descriptors: Descriptors, local: Sequence[bytes | None] | None = None
    ) -> None:
        """Add photos with their descriptors, (n, dim), or update them; all of them or none.

        `local` are their packed local features, if the library keeps any.
        """
        if not len(photos):
            return
        with self.change() as change:
            change.put(photos, self.write_segment(change, descriptors).tolist(), local)
        self._tidy()

    def compact(self) -> None:
        """Merge segments into as few as possible."""
        numbers = list(self.contents().segments)
        while part := stores.limit_merge(self.contents(), numbers, self.identity["dim"], self.limits):
            self._merge_segments(part)
            numbers = numbers[len(part) :]

    def remove(self, names: Iterable[str]) -> int:
        """Remove photos by name; returns how many the library had."""
        with self.change() as change:
            return change.remove(names)

    def search(
        self,
        queries: Descriptors,
        count: int = 20,
        filters: Columns | None = None,
        exact: bool = False,
        folder: str = "",
    ) -> list[list[Answer]]:
        """The best answers to each query's descriptor, (Q, dim), among the photos whose metadata pass the filters.

        Args:
            count: number of answers.
            filters: see `filters`.
            exact: compare all photos, however many there are.
            folder: path of a folder that answers must be below; all photos if empty.

        Raises UserError for a column that no photo has.
        """
        # Repeated if another process moves or removes what was found.
        while True:
            contents = self.contents()
            allowed = self._allowed(filters or {}, folder) if filters or folder else None
            k = min(count, len(contents) if allowed is None else len(allowed))
            if not k:
                return [[] for _ in queries]
            try:
                cosines, keys, compared = self.store.search(queries, k, contents, allowed, exact)
            except UserError:
                if self.contents() is contents:
                    raise
                continue
            self._check_values(cosines[keys >= 0])
            wanted = np.unique(keys[keys >= 0])
            photos = self.catalogue.photos(wanted.tolist())
            missing = wanted[~np.isin(wanted, list(photos))]
            if not len(missing):
                return [
                    [
                        Answer(photos[key], float(c), exact=compared)
                        for key, c in zip(row.tolist(), line, strict=True)
                        if key >= 0
                    ]
                    for row, line in zip(keys, cosines, strict=True)
                ]
            if self.contents() is contents:
                raise UserError(f"{self.folder} is damaged: it has no photos for {len(missing)} answers")

    def keys(self) -> Keys:
        """Keys of all descriptors, (n,), ascending."""
        contents = self.contents()
        return contents.keys(sorted(contents.segments))

    def descriptors(self, keys: Keys) -> Descriptors:
        """The descriptors with these keys, (n, dim), in their order. Raises UserError if one cannot be read."""
        self.contents().check(keys)
        found = np.empty((len(keys), self.identity["dim"]), np.float32)
        numbers = keys >> ROW_BITS
        rows = keys - (numbers << ROW_BITS)
        for number in np.unique(numbers).tolist():
            own = np.flatnonzero(numbers == number)
            for part in (own[start : start + BATCH] for start in range(0, len(own), BATCH)):
                found[part] = self.store.rows(number, rows[part])
        self._check_values(found)
        return found

    def kept_features(self, numbers: Iterable[int], config: Mapping[str, object], dim: int) -> dict[int, LocalFeatures]:
        """The kept local features of photos, by their numbers, if they are of this kind, with `dim` values each.

        Raises UserError for damaged ones.
        """
        if self.catalogue.local() != config:
            return {}
        try:
            return {number: unpack(data, dim) for number, data in self.catalogue.kept(numbers).items()}
        except UserError as error:
            raise UserError(f"{self.folder}: {error}: describe the photos again with dolglab embed --again") from None

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction on the catalogue, visible to this library's next search."""
        try:
            with self.catalogue.change() as change:
                yield change
        finally:
            # The catalogue's version does not change with transactions of this process.
            self._known = None

    def write_segment(self, change: Change, descriptors: Descriptors) -> Keys:
        """Write descriptors, (n, dim), as part of a change; returns their keys, (n,)."""
        return change.add_segment(len(descriptors), lambda number: self.store.write(number, descriptors))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the library's lock, so that only one process writes.

        Raises LibraryBusy if another process holds it, and LibraryLinked.
        """
        for part in self.folder.iterdir():
            if part.is_symlink():
                raise LibraryLinked(
                    f"{part} is a link, and nothing is written through links: move or copy the whole library instead"
                )
        lock = self.folder / LOCK
        if not acquire(lock, needed=True):
            raise LibraryBusy(f"another process writes to {self.folder}: wait for it to end")
        try:
            sweep(self.folder)
            self.store.sweep(self.contents())
            if self.identity.get("adapter") is None:
                # Left by a process that was killed while it adapted the library.
                (self.folder / ADAPTER).unlink(missing_ok=True)
            yield
            self._tidy()
            self.store.sweep(self.contents())
        finally:
            release(lock)

    def _check_values(self, values: NDArray[np.float32]) -> None:
        """Raise UserError for values, or dot products, that descriptors of length 1 cannot have."""
        if not (np.abs(values) <= MAX_VALUE).all():
            raise UserError(f"{self.folder} is damaged: it holds descriptors that are not L2-normalised")

    def _tidy(self) -> None:
        try:
            while numbers := stores.segments_to_merge(self.contents(), self.identity["dim"], self.limits):
                self._merge_segments(numbers)
            self._index_segments(self.store.outdated(self.contents()))
        except UserError:
            # A damaged segment stays until `forget_damaged`; it does not affect photos that were added.
            return

    def _merge_segments(self, numbers: Sequence[int]) -> None:
        """Merge some segments into one, without deleted descriptors."""
        old = self.contents().keys(numbers)
        descriptors = self.descriptors(old)
        with self.change() as change:
            if len(old):
                change.move(old, self.write_segment(change, descriptors))
            for gone in numbers:
                change.drop_segment(gone)

    def _index_segments(self, numbers: Sequence[int]) -> None:
        """Build the index of some segments, one by one."""
        for number in numbers:
            kind = self.store.index(number)
            with self.change() as change:
                change.set_kind(number, kind)

    def check_filters(self, filters: Columns) -> None:
        """Raise UserError for a column that no photo has."""
        known = self.catalogue.columns()
        for column in filters:
            if column not in known:
                raise self.no_column(column)

    def no_column(self, column: str) -> UserError:
        """The error for a column that no photo has."""
        columns = ", ".join(map(printable, self.catalogue.columns()))
        known = f"the columns are {columns}" if columns else "there are no columns (dolglab embed --metadata adds some)"
        return UserError(f"no photo has {printable(column)}: {known}")

    def _allowed(self, filters: Columns, folder: str) -> Keys:
        self.check_filters(filters)
        return self.catalogue.matching(filters, folder)

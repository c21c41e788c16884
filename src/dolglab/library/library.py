"""A library: photos that can be searched by photo, added to, and taken from."""

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
from dolglab.library.packing import unpack
from dolglab.library.stores import LIMITS, SegmentLimits
from dolglab.retrieval.adapter import Adapter, read_adapter, write_adapter

LOCK = ".lock"
ADAPTER = "adapter.safetensors"
# Descriptors that are read at a time.
BATCH = 8192
# A value of an L2-normalised descriptor, or the product of two, with what rounding adds.
MAX_VALUE = 1.01
# What of a model's identity must be the library's, and what of that may change where all is described anew.
CHANGEABLE = ("scales", "max_side", "colour", "decoding")
IDENTITY = ("model", "adapter", "dim", *CHANGEABLE)


def model_source(identity: Mapping[str, Any]) -> str:
    """What gives the network of a library again, by its identity.

    Raises NotAllowedError for one that was never fetched from the network, where the user does not allow that.
    """
    source = identity["source"]
    if "://" in source:
        from dolglab.sharing.hub import is_cached

        if not is_cached(source):
            check_allowed(source)
    return source


def adapter_of(folder: Path, identity: Mapping[str, Any]) -> Adapter | None:
    """What the descriptors of the library in a folder went through, by its identity; None where they are a network's.

    Raises UserError where the file is gone, damaged, or another one.
    """
    if identity.get("adapter") is None:
        return None
    adapter = read_adapter(folder / ADAPTER)
    if adapter.fingerprint != identity["adapter"]:
        raise UserError(f"{folder / ADAPTER} is not what {folder} was adapted by: put that back, or embed it anew")
    return adapter


class LibraryBusy(UserError):
    """Another process writes to the library."""


class LibraryLinked(UserError):
    """A part of the library is a link: what is written or deleted there would be somewhere else."""


class Library:
    """The library in a folder.

    Args:
        folder: where it is.
        identity: of the model whose descriptors it shall take and be asked with (see `LoadedExtractor`); None for
            `check` later.
        limits: when segments in faiss's files are indexed and merged.

    Raises UserError where there is none, or one that another model made.
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
        # The catalogue's version and contents, when they were asked for last.
        self._known: tuple[int, Contents] | None = None

    @classmethod
    def open(
        cls, folder: str | Path, identity: Mapping[str, Any], store: str | None = None, limits: SegmentLimits = LIMITS
    ) -> Library:
        """The library in `folder`, made where there is none.

        `store` is where its descriptors lie, see `store_options`; None for what it has, or flat segments. Raises
        UserError as the library does, and where its descriptors lie elsewhere.
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
                f"{library.folder} keeps its descriptors in {there}, not {store}: leave --store out, or name another"
            )
        return library

    def close(self) -> None:
        """Close its files and connections."""
        self.store.close()
        self.catalogue.close()

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raise UserError for another model than the one that made the library."""
        if key := self.differs_in(identity):
            if key == "adapter":
                raise UserError(f"{self.folder} was adapted meanwhile, or by another adapter: open it anew")
            mine, theirs = self.identity[key], identity[key]
            made = f"{key} {mine}, not {theirs}" if key != "model" else f"{self.identity['title']} ({mine})"
            option = f"--{key.replace('_', '-')}" if key in CHANGEABLE else "--model"
            anew = "--again without photos, which describes it anew" if key in CHANGEABLE else "another --library"
            raise UserError(f"{self.folder} was made with {made}: give the same {option} or none, or {anew}")

    def differs_in(self, identity: Mapping[str, Any]) -> str | None:
        """The first part of a model's identity that is not this library's."""
        return next((key for key in IDENTITY if self.identity.get(key) != identity.get(key)), None)

    def describe_anew(self, names: Iterable[str], identity: Mapping[str, Any]) -> None:
        """Have photos count as changed until they are described anew, `CHANGEABLE` as an identity says from now on."""
        self.identity = {**self.identity, **{key: identity[key] for key in CHANGEABLE}}
        with self.change() as change:
            change.mark_to_describe(names)
            change.set_identity(self.identity)

    def adapter(self) -> Adapter | None:
        """What its descriptors went through, see `adapter_of`."""
        return adapter_of(self.folder, self.identity)

    def check_adaptable(self) -> None:
        """Raise UserError where its descriptors were adapted before, or lie where they cannot be."""
        if self.identity.get("adapter") is not None:
            raise UserError(f"{self.folder} is adapted already: dolglab embed makes another library to adapt")
        self.store.resized(self.identity["dim"])

    def adapt(self, adapter: Adapter) -> None:
        """Put all descriptors through an adapter and take in, and be asked with, such ones from now on.

        In one transaction: readers, and a process that is killed, find the old descriptors or the new ones. Raises
        UserError for an adapter of other descriptors, and as `check_adaptable`.
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
        """Have the photos count as changed whose descriptors cannot be read from disk; how many they are.

        An index over descriptors that cannot be read, where these can, is made anew.
        """
        damaged = self.store.damaged(self.contents())
        with self.change() as change:
            lost = sum(change.drop_segment(number) for number in damaged)
        self._index_segments(self.store.outdated(self.contents(), look=True))
        return lost

    def __len__(self) -> int:
        """Photos that can be found."""
        return len(self.contents())

    def contents(self) -> Contents:
        """What there is, with what other processes have changed: the same object until something does.

        Raises UserError where another process has adapted the library.
        """
        # Threads that search share both of what is known, or neither.
        known, version = self._known, self.catalogue.version()
        if known is None or known[0] != version:
            if self.catalogue.identity().get("adapter") != self.identity.get("adapter"):
                raise UserError(f"{self.folder} was adapted meanwhile: open it anew")
            known = self._known = version, self.catalogue.contents()
        return known[1]

    def add(
        self, photos: Sequence[Photo], descriptors: Descriptors, local: Sequence[bytes | None] | None = None
    ) -> None:
        """Add photos with their descriptors, (n, dim), or put these in the place of older ones; all of them or none.

        `local` are their local features, packed, where the library keeps some.
        """
        if not len(photos):
            return
        with self.change() as change:
            change.put(photos, self.write_segment(change, descriptors).tolist(), local)
        self._tidy()

    def compact(self) -> None:
        """Make as few segments as there can be."""
        numbers = list(self.contents().segments)
        while part := stores.limit_merge(self.contents(), numbers, self.identity["dim"], self.limits):
            self._merge_segments(part)
            numbers = numbers[len(part) :]

    def remove(self, names: Iterable[str]) -> int:
        """Take photos out by name; how many were there."""
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
        """The best answers to each query's descriptor, (Q, dim), of the photos whose metadata pass the filters.

        With `exact` all of these are compared, however many they are; with a `folder`, its path, those below it alone.
        Raises UserError for a column that no photo has.
        """
        # Again where another process has moved or taken out meanwhile what was looked for.
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
                raise UserError(f"{self.folder} is damaged: photos of {len(missing)} answers are missing")

    def keys(self) -> Keys:
        """Keys of all descriptors, (n,), ascending."""
        contents = self.contents()
        return contents.keys(sorted(contents.segments))

    def descriptors(self, keys: Keys) -> Descriptors:
        """The descriptors with these keys, (n, dim), in their order. Raises UserError where one cannot be read."""
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
        """Local features of photos, by their numbers, of those of which it keeps some of this kind, of `dim` values.

        Raises UserError for some that are damaged.
        """
        if self.catalogue.local() != config:
            return {}
        try:
            return {number: unpack(data, dim) for number, data in self.catalogue.kept(numbers).items()}
        except UserError as error:
            raise UserError(f"{self.folder}: {error}: dolglab embed --again describes the photos anew") from None

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction on the catalogue, which this library's next search knows of."""
        try:
            with self.catalogue.change() as change:
                yield change
        finally:
            # What this process changes, its own catalogue does not count.
            self._known = None

    def write_segment(self, change: Change, descriptors: Descriptors) -> Keys:
        """Write descriptors, (n, dim), as part of a change; their keys, (n,)."""
        return change.add_segment(len(descriptors), lambda number: self.store.write(number, descriptors))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While one process writes, another one does not.

        Raises LibraryBusy where one does, and LibraryLinked.
        """
        for part in self.folder.iterdir():
            if part.is_symlink():
                raise LibraryLinked(
                    f"{part} is a link: nothing is written there; move the whole library, or copy it here"
                )
        lock = self.folder / LOCK
        if not acquire(lock, needed=True):
            raise LibraryBusy(f"another process writes to {self.folder}: wait for it to end")
        try:
            sweep(self.folder)
            self.store.sweep(self.contents())
            if self.identity.get("adapter") is None:
                # Of a process that was killed before it had adapted the library.
                (self.folder / ADAPTER).unlink(missing_ok=True)
            yield
            self._tidy()
            self.store.sweep(self.contents())
        finally:
            release(lock)

    def _check_values(self, values: NDArray[np.float32]) -> None:
        """Raise UserError for values or products of descriptors of another length than 1."""
        if not (np.abs(values) <= MAX_VALUE).all():
            raise UserError(f"{self.folder} is damaged: it holds descriptors that are not L2-normalised")

    def _tidy(self) -> None:
        try:
            while numbers := stores.segments_to_merge(self.contents(), self.identity["dim"], self.limits):
                self._merge_segments(numbers)
            self._index_segments(self.store.outdated(self.contents()))
        except UserError:
            # A damaged segment stays as it is until `forget_damaged`; what was added beside it is there all the same.
            return

    def _merge_segments(self, numbers: Sequence[int]) -> None:
        """Write what counts of some segments as one."""
        old = self.contents().keys(numbers)
        descriptors = self.descriptors(old)
        with self.change() as change:
            if len(old):
                change.move(old, self.write_segment(change, descriptors))
            for gone in numbers:
                change.drop_segment(gone)

    def _index_segments(self, numbers: Sequence[int]) -> None:
        """Make the index over some segments, one by one."""
        for number in numbers:
            kind = self.store.index(number)
            with self.change() as change:
                change.set_kind(number, kind)

    def check_filters(self, filters: Columns) -> None:
        """Raise UserError for a column that no photo has."""
        known = self.catalogue.columns()
        for column in filters:
            if column not in known:
                raise UserError(f"no photo has {column}: the columns are {', '.join(known) or 'none'} (--metadata)")

    def _allowed(self, filters: Columns, folder: str) -> Keys:
        self.check_filters(filters)
        return self.catalogue.matching(filters, folder)

"""Images read at random out of larger files, such as the LitData chunks of `task=pack`, here or in an object store."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import fsspec
import numpy as np
from numpy.typing import NDArray

from dolglab.data.sources import GLDv2Source
from dolglab.errors import UserError
from dolglab.io import atomic_path, write_bytes

# Of each image, by ascending id: its id, the position of its file, and where it starts and how long it is, in bytes.
COLUMNS = {"id": np.uint64, "archive": np.uint16, "offset": np.int64, "size": np.int64}
Table = dict[str, NDArray[Any]]

# In `root/packed/SPLIT`: LitData's own list of its chunks, and our table of the images in them, which comes last.
LITDATA_INDEX, TABLE = "index.json", ".table"
# Below `root`, what was fetched of packed images in an object store.
CACHE = ".packed-cache"
# How often a chunk is fetched anew that another process dropped between fetching and reading.
CHUNK_TRIES = 5


class ArchiveSource(GLDv2Source, ABC):
    """Images out of larger files, which `open_files` knows.

    The table is memory-mapped, so that all processes share it. A file is opened for each read: that costs
    microseconds, and no process holds hundreds of files, or one that has gone stale.
    Raises UserError as `open_files`, and for ids that lie in no file.
    """

    # What helps where an image lies in none of the files.
    advice = "list only images that are there"

    def __init__(self, root: str | Path, split: str, ids: NDArray[np.uint64]) -> None:
        super().__init__(root, split, ids)
        self.folder, self._files, self._table = self.open_files()
        available = self._table["id"]
        self._rows = np.searchsorted(available, ids)
        # Not np.isin, which would read all of the mapped table for the few images of a worker's part.
        found = np.zeros(len(ids), np.bool_)
        if len(available):
            found = available[np.minimum(self._rows, len(available) - 1)] == ids
        if not found.all():
            missing = np.flatnonzero(~found)
            raise UserError(
                f"{len(missing):,} of {len(ids):,} listed images lie in none of the {len(self._files)} files of "
                f"{self.folder}, the first is {int(ids[missing[0]]):016x}: {self.advice}"
            )

    @abstractmethod
    def open_files(self) -> tuple[Path, list[str], Table]:
        """The folder, the files' names, and the table. Raises UserError where they are not there or do not fit."""

    def size(self, position: int) -> int:
        """Bytes of the image."""
        return int(self._table["size"][self._rows[position]])

    def read(self, position: int) -> bytes:
        """The image's bytes. Raises OSError where the file ends before it."""
        row = self._rows[position]
        size, offset = self.size(position), int(self._table["offset"][row])
        name = self._files[int(self._table["archive"][row])]
        file = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(file, size, offset)
        finally:
            os.close(file)
        if len(data) != size:
            raise OSError(f"{name} ends before {self.name(position)}")
        return data

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Some of the images, in that order; table and files are shared."""
        part = type(self).__new__(type(self))
        vars(part).update(vars(self), ids=self.ids[rows], _rows=self._rows[rows])
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        """What another process opens anew: mapped memory does not travel."""
        return type(self), (self.root, self.split, self.ids)


def open_table(home: Path) -> Table:
    """A table's columns, memory-mapped. Raises OSError or ValueError where they are damaged."""
    table = {name: np.load(home / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in COLUMNS}
    if len({len(column) for column in table.values()}) != 1:
        raise ValueError("columns of several lengths")
    return table


def save_table(home: Path, table: Table) -> None:
    """Write a table's columns as a folder in one step, in the place of a damaged one. Raises OSError."""
    with atomic_path(home) as aside:
        aside.mkdir()
        for name, kind in COLUMNS.items():
            np.save(aside / f"{name}.npy", table[name].astype(kind))
        shutil.rmtree(home, ignore_errors=True)


class PackedSource(ArchiveSource):
    """Images of `root/packed/SPLIT`, packed by `pack_gldv2`; the same ids in the same order as unpacked.

    `orientation` is how they were packed, "exif" or "ignore".
    """

    advice = "pack them again, or list only images that are there"

    def open_files(self) -> tuple[Path, list[str], Table]:
        """Raises UserError where nothing was packed, or where chunks are missing or of another size than written."""
        folder = self.root / "packed" / self.split
        how = f"`dolglab prepare task=pack root={self.root}`"
        try:
            listed = json.loads((folder / LITDATA_INDEX).read_text())
            chunks, self.orientation = listed["chunks"], str(listed["packed"]["orientation"])
            table = open_table(folder / TABLE)
            files = {str(chunk["filename"]): int(chunk["chunk_bytes"]) for chunk in chunks}
            wrong = [name for name, size in files.items() if (folder / name).stat().st_size != size]
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is missing: {how} packs the images") from None
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            raise UserError(f"what is packed in {folder} cannot be read: {how} does it anew") from None
        if wrong:
            raise UserError(f"{folder / wrong[0]} is not as it was packed: {how} does it anew")
        return folder, list(files), table


class StreamedSource(ArchiveSource):
    """Images of a folder that `task=pack` wrote and that was copied to a place such as `s3://BUCKET/packed/train`.

    What is fetched is shared by all processes of a machine, below `root/.packed-cache`; the chunks that were fetched
    longest ago are dropped beyond `cache_gb` gigabytes. Random order over all images would fetch a chunk for each of
    them: draw them chunk by chunk (`groups`, see `EpochSampler`).

    Args:
        root, split, ids: as for `ArchiveSource`.
        url: the folder, as fsspec writes it.
        cache_gb: space for chunks; a few dozen of them should fit.

    Raises:
        UserError: a place that cannot be read, or that holds no packed images.
    """

    def __init__(self, root: str | Path, split: str, ids: NDArray[np.uint64], url: str, cache_gb: float = 50.0) -> None:
        self.url = url.rstrip("/")
        self.cache_gb = cache_gb
        super().__init__(root, split, ids)

    def open_files(self) -> tuple[Path, list[str], Table]:
        """Fetches LitData's list and the table; chunks are fetched when they are read."""
        try:
            listed = self._download(LITDATA_INDEX)
            about = json.loads(listed)
            self.orientation = str(about["packed"]["orientation"])
            files = [str(chunk["filename"]) for chunk in about["chunks"]]
            folder = self.root / CACHE / hashlib.blake2b(listed, digest_size=8).hexdigest()
            for name in COLUMNS:
                place = folder / TABLE / f"{name}.npy"
                if not place.exists():
                    write_bytes(place, self._download(f"{TABLE}/{name}.npy"))
            return folder, files, open_table(folder / TABLE)
        except Exception as error:  # Each kind of store raises errors of its own.
            words = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{self.url} cannot be read as packed images: {words}") from error

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) the chunk that each image lies in."""
        return self._table["archive"][self._rows].astype(np.int64)

    def read(self, position: int) -> bytes:
        """The image's bytes, its chunk being fetched first. Raises OSError where that fails."""
        name = self._files[int(self._table["archive"][self._rows[position]])]
        for _ in range(CHUNK_TRIES):
            self._ensure_chunk(name)
            try:
                return super().read(position)
            except FileNotFoundError:
                continue
        raise OSError(f"{name} is dropped faster than it is read: raise data.cache_gb")

    def __reduce__(self) -> tuple[Any, ...]:
        """As `ArchiveSource`."""
        return type(self), (self.root, self.split, self.ids, self.url, self.cache_gb)

    def _ensure_chunk(self, name: str) -> None:
        place = self.folder / name
        if place.exists():
            return
        with self._locked(name):
            if not place.exists():
                write_bytes(place, self._download(name))
        # One process at a time, or one would ask for the size of what another has just dropped.
        with self._locked(CACHE):
            self._evict(place)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Wait for other processes, and for other threads of this one, which `io.acquire` would let in."""
        with (self.folder / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _evict(self, newest: Path) -> None:
        """Delete the chunks that were fetched longest ago, as far as there are too many bytes."""
        there = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.folder.glob("*.bin"))
        excess = sum(size for _, size, _ in there) - self.cache_gb * 1e9
        for _, size, path in there:
            if excess > 0 and path != newest:
                path.unlink()
                excess -= size

    def _download(self, name: str) -> bytes:
        try:
            files, path = fsspec.url_to_fs(f"{self.url}/{name}")
            return files.cat_file(path)
        except OSError:
            raise
        except Exception as error:  # As in `open_files`.
            raise OSError(f"{self.url}/{name}: {error}") from error

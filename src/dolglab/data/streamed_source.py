"""Packed images that lie in an object store: whole chunks are fetched as they are needed, and kept for a while."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray

from dolglab.data.archive_source import COLUMNS, LITDATA_INDEX, TABLE, ArchiveSource, Table, open_table
from dolglab.errors import UserError
from dolglab.io import write_bytes

CACHE = ".packed-cache"
# How often a chunk is fetched anew that another process dropped between fetching and reading.
CHUNK_TRIES = 5


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

    def __getstate__(self) -> dict[str, Any]:
        """As `ArchiveSource`."""
        return {**super().__getstate__(), "url": self.url, "cache_gb": self.cache_gb}

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
        except Exception as error:  # As above.
            raise OSError(f"{self.url}/{name}: {error}") from error

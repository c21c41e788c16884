"""Images read in random order from larger files: GLDv2's tar archives, and the LitData chunks of `task=pack`."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Self

import fsspec
import numpy as np
from numpy.typing import NDArray

from dolglab.concurrency import process_map
from dolglab.data.sources import GLDv2Source
from dolglab.errors import UserError
from dolglab.io import atomic_path, folder_lock, write_bytes, write_text

# For each image, by ascending id: its id, the position of its file, and its offset and size in bytes.
COLUMNS = {"id": np.uint64, "archive": np.uint16, "offset": np.int64, "size": np.int64}
Table = dict[str, NDArray[Any]]

# Beside the archives: an index of each, with the columns `PART`, and one of all.
INDEX_FORMAT, INDEX_FOLDER, INDEX_CURRENT = 1, ".index", "current.json"
PART = ("id", "offset", "size")
IMAGE_NAME = re.compile(r"([0-9a-f]{16})\.jpg")
# An archive ends with two blocks of zeros, padded to a record of 20 blocks.
BLOCK = 512
MAX_END = 22 * BLOCK
ADVICE = "delete it, and run `dolglab prepare task=gldv2` to download it again"
# In `root/packed/SPLIT`: LitData's list of its chunks, and our table of their images, which is written last.
LITDATA_INDEX, TABLE = "index.json", ".table"
# Below `root`: the downloaded chunks of packed images in an object store.
CACHE = ".packed-cache"
# How often a chunk is downloaded again if another process deletes it between download and reading.
CHUNK_TRIES = 5


class ArchiveSource(GLDv2Source, ABC):
    """Images from larger files, which `open_files` finds.

    The table is memory-mapped, so that all processes share it. A file is opened for each read: that takes
    microseconds, and no process keeps hundreds of files open, or one that has been replaced.
    Raises UserError like `open_files`, and for ids that are in no file.
    """

    # What to do if an image is in none of the files.
    advice = "list only images that exist"

    def __init__(self, root: str | Path, split: str, ids: NDArray[np.uint64]) -> None:
        super().__init__(root, split, ids)
        self.folder, self._files, self._table = self.open_files()
        available = self._table["id"]
        self._rows = np.searchsorted(available, ids)
        # np.isin would read the whole mapped table for the few images of a worker.
        found = np.zeros(len(ids), np.bool_)
        if len(available):
            found = available[np.minimum(self._rows, len(available) - 1)] == ids
        if not found.all():
            missing = np.flatnonzero(~found)
            raise UserError(
                f"{len(missing):,} of {len(ids):,} listed images are in none of the {len(self._files)} files of "
                f"{self.folder}; the first is {int(ids[missing[0]]):016x}: {self.advice}"
            )

    @abstractmethod
    def open_files(self) -> tuple[Path, list[str], Table]:
        """The folder, the files' names, and the table. Raises UserError if they are missing or inconsistent."""

    def size(self, position: int) -> int:
        """Size of the image in bytes."""
        return int(self._table["size"][self._rows[position]])

    def read(self, position: int) -> bytes:
        """The image's bytes. Raises OSError if the file ends too early."""
        row = self._rows[position]
        size, offset = self.size(position), int(self._table["offset"][row])
        name = self._files[int(self._table["archive"][row])]
        file = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(file, size, offset)
        finally:
            os.close(file)
        if len(data) != size:
            raise OSError(f"{name} ends before the end of {self.name(position)}")
        return data

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The images at these rows, in that order; table and files are shared."""
        part = type(self).__new__(type(self))
        vars(part).update(vars(self), ids=self.ids[rows], _rows=self._rows[rows])
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the files again, since mapped memory cannot be pickled."""
        return type(self), (self.root, self.split, self.ids)


def open_table(home: Path) -> Table:
    """A table's columns, memory-mapped. Raises OSError or ValueError if they are damaged."""
    table = {name: np.load(home / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in COLUMNS}
    if len({len(column) for column in table.values()}) != 1:
        raise ValueError("columns of different lengths")
    return table


def save_table(home: Path, table: Table) -> None:
    """Write a table's columns as a folder in one step; it replaces a damaged one. Raises OSError."""
    with atomic_path(home) as aside:
        aside.mkdir()
        for name, kind in COLUMNS.items():
            np.save(aside / f"{name}.npy", table[name].astype(kind))
        shutil.rmtree(home, ignore_errors=True)


class PackedSource(ArchiveSource):
    """Images of `root/packed/SPLIT`, packed by `pack_gldv2`; the same ids in the same order as unpacked.

    `packed_with` has the orientation and colour that they were packed with.
    """

    advice = "pack them again, or list only images that exist"

    def open_files(self) -> tuple[Path, list[str], Table]:
        """Raises UserError if nothing was packed, or if chunks are missing or have changed their size."""
        folder = self.root / "packed" / self.split
        how = f"`dolglab prepare task=pack root={self.root}`"
        try:
            listed = json.loads((folder / LITDATA_INDEX).read_text())
            chunks, self.packed_with = listed["chunks"], _packed_with(listed["packed"])
            table = open_table(folder / TABLE)
            files = {str(chunk["filename"]): int(chunk["chunk_bytes"]) for chunk in chunks}
            wrong = [name for name, size in files.items() if (folder / name).stat().st_size != size]
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is missing: {how} packs the images") from None
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            raise UserError(f"the packed images in {folder} cannot be read: {how} packs them again") from None
        if wrong:
            raise UserError(f"{folder / wrong[0]} has changed since it was packed: {how} packs the images again")
        return folder, list(files), table


class StreamedSource(ArchiveSource):
    """Images of a folder that was written by `task=pack` and copied to an address such as `s3://BUCKET/packed/train`.

    All processes of a machine share the downloaded chunks, below `root/.packed-cache`; beyond `cache_gb` gigabytes, the
    chunks that were downloaded first are deleted. A random order over all images would download a chunk for almost
    every image: draw images chunk by chunk (`groups`, see `EpochSampler`).

    Args:
        root, split, ids: as for `ArchiveSource`.
        url: the folder, as an fsspec address.
        cache_gb: space for chunks; it should hold a few dozen of them.

    Raises UserError for an address that cannot be read, or that has no packed images.
    """

    def __init__(self, root: str | Path, split: str, ids: NDArray[np.uint64], url: str, cache_gb: float = 50.0) -> None:
        self.url = url.rstrip("/")
        self.cache_gb = cache_gb
        super().__init__(root, split, ids)

    def open_files(self) -> tuple[Path, list[str], Table]:
        """Download LitData's list and the table; chunks are downloaded when they are read."""
        try:
            listed = self._download(LITDATA_INDEX)
            about = json.loads(listed)
            self.packed_with = _packed_with(about["packed"])
            files = [str(chunk["filename"]) for chunk in about["chunks"]]
            folder = self.root / CACHE / hashlib.blake2b(listed, digest_size=8).hexdigest()
            for name in COLUMNS:
                place = folder / TABLE / f"{name}.npy"
                if not place.exists():
                    write_bytes(place, self._download(f"{TABLE}/{name}.npy"))
            return folder, files, open_table(folder / TABLE)
        except Exception as error:  # Each kind of store has its own errors.
            words = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{self.url} cannot be read as packed images: {words}") from error

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) the chunk that contains each image."""
        return self._table["archive"][self._rows].astype(np.int64)

    def read(self, position: int) -> bytes:
        """The image's bytes; downloads its chunk first if needed. Raises OSError if that fails."""
        name = self._files[int(self._table["archive"][self._rows[position]])]
        place = self.folder / name
        for _ in range(CHUNK_TRIES):
            if not place.exists():
                with self._locked(name):
                    if not place.exists():
                        write_bytes(place, self._download(name))
                # One process at a time, or one would read the size of a chunk that another has just deleted.
                with self._locked(CACHE):
                    self._evict(place)
            try:
                return super().read(position)
            except FileNotFoundError:
                continue
        raise OSError(f"{name} was removed from the cache before it could be read: increase data.cache_gb")

    def __reduce__(self) -> tuple[Any, ...]:
        """See `ArchiveSource`."""
        return type(self), (self.root, self.split, self.ids, self.url, self.cache_gb)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Exclude other processes, and other threads of this one, which `io.acquire` does not."""
        with (self.folder / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _evict(self, newest: Path) -> None:
        """Delete the oldest downloads until the chunks fit into `cache_gb`."""
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


class TarSource(ArchiveSource):
    """Images of `root/SPLIT/*.tar`, indexed by `index_archives`."""

    advice = "download the other archives and index them (mode=index), or list only images that exist"

    def open_files(self) -> tuple[Path, list[str], Table]:
        """Raises UserError if there is no index, or if the archives are not those that were indexed."""
        folder = self.root / self.split
        how = f"run `dolglab prepare task=gldv2 root={self.root} split={self.split} mode=index`"
        try:
            about = json.loads((folder / INDEX_FOLDER / INDEX_CURRENT).read_text())
            if about["format"] != INDEX_FORMAT:
                raise ValueError
            table = open_table(folder / INDEX_FOLDER / about["tag"])
            archives = [str(name) for name, _, _ in about["archives"]]
            same = about["archives"] == archive_stamps([folder / name for name in archives])
        except FileNotFoundError:
            raise UserError(f"the archives of {folder} have no index, or are missing: {how}") from None
        except OSError as error:
            raise UserError(f"the index of {folder} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, EOFError):
            raise UserError(f"the index of {folder} is damaged: {how} again") from None
        if not same:
            raise UserError(f"the archives of {folder} are not those that were indexed: {how} again")
        # Compared by a scan that is resumed.
        self.stamp = str(about["tag"])
        return folder, archives, table


def index_archives(folder: str | Path, workers: int = 4) -> Path:
    """Index the tar archives of a folder and return the index's path; indexed archives are not read again.

    Raises UserError if there are no archives, if one is damaged, truncated or unsafe, if an image is in two of them,
    and if the folder cannot be written or is being prepared by another process.
    """
    folder = Path(folder)
    archives = sorted(path for path in folder.glob("*.tar") if path.is_file())
    if not archives:
        raise UserError(f"there are no archives in {folder} to index")
    with folder_lock(folder):
        stale = [path for path in archives if _indexed_part(path) is None]
        list(process_map(_index_one, stale, workers, "indexing", unit="archives"))
        return _join(folder, archives)


def archive_stamps(archives: Sequence[Path]) -> list[list[Any]]:
    """Name, size and modification time of each archive, for which an index is valid."""
    return [[path.name, (stat := path.stat()).st_size, stat.st_mtime_ns] for path in archives]


def read_headers(archive: Path) -> Table:
    """Ids, offsets and sizes of an archive's images, in its order; other files are skipped.

    Raises UserError for an archive that is damaged or truncated, and for links, devices, and names that are absolute
    or lead out of the archive.
    """
    found: list[tuple[int, int, int]] = []
    try:
        with tarfile.open(archive, "r:") as tar:
            while (member := tar.next()) is not None:
                match = IMAGE_NAME.fullmatch(safe_name(member, archive).name)
                if member.isfile() and match:
                    found.append((int(match[1], 16), member.offset_data, member.size))
                # Otherwise the library keeps every header.
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
            end = tar.offset
        with archive.open("rb") as file:
            file.seek(end)
            rest = file.read(MAX_END + 1)
        if not BLOCK <= len(rest) <= MAX_END or any(rest):
            raise UserError(f"{archive} is truncated or damaged after {len(found)} images: {ADVICE}")
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} is not a complete tar archive ({error}): {ADVICE}") from error
    except OSError as error:
        raise UserError(f"{archive} cannot be read: {error.strerror}") from error
    return {name: np.array([row[place] for row in found], COLUMNS[name]) for place, name in enumerate(PART)}


def safe_name(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    """A member's name. Raises UserError for links, devices, sparse files, and names that lead out of the archive."""
    name = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()) or member.issparse() or name.is_absolute() or ".." in name.parts:
        raise UserError(f"{archive} contains {member.name!r}, which is not a plain file inside it: refused")
    return name


def _index_one(archive: Path) -> None:
    """Write an archive's part; its stamp is read first, so that an archive that changes meanwhile is indexed again."""
    (stamp,) = archive_stamps([archive])
    data = io.BytesIO()
    np.savez(data, stamp=json.dumps([INDEX_FORMAT, *stamp]), allow_pickle=False, **read_headers(archive))
    try:
        write_bytes(_part_path(archive), data.getvalue())
    except OSError as error:
        raise UserError(f"{_part_path(archive)} cannot be written: {error.strerror or error}") from error


def _part_path(archive: Path) -> Path:
    return archive.parent / INDEX_FOLDER / "parts" / f"{archive.stem}.npz"


def _indexed_part(archive: Path) -> Table | None:
    """An archive's part; None if there is none, or if the archive has changed since."""
    try:
        with _part_path(archive).open("rb") as file, np.load(file, allow_pickle=False) as part:
            if json.loads(str(part["stamp"])) != [INDEX_FORMAT, *archive_stamps([archive])[0]]:
                return None
            return {name: part[name] for name in PART}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _packed_with(about: Mapping[str, object]) -> tuple[str, str]:
    """The orientation and colour of packed images; before there was a choice, colours were ignored."""
    return str(about["orientation"]), str(about.get("colour", "ignore"))


def _join(folder: Path, archives: list[Path]) -> Path:
    """Join the archives' parts into one sorted table."""
    stamps = archive_stamps(archives)
    tag = hashlib.blake2b(json.dumps([INDEX_FORMAT, stamps]).encode(), digest_size=8).hexdigest()
    home = folder / INDEX_FOLDER / tag
    try:
        open_table(home)
    except (OSError, ValueError, EOFError):
        table = _table(archives)
        try:
            save_table(home, table)
        except OSError as error:
            raise UserError(f"{home} cannot be written: {error.strerror or error}") from error
    write_text(
        folder / INDEX_FOLDER / INDEX_CURRENT, json.dumps({"format": INDEX_FORMAT, "tag": tag, "archives": stamps})
    )
    for old in (folder / INDEX_FOLDER).iterdir():
        if old.is_dir() and old.name not in (tag, "parts"):
            shutil.rmtree(old)
    print(f"{folder}: {len(np.load(home / 'id.npy', mmap_mode='r')):,} images in {len(archives)} archives indexed")
    return home


def _table(archives: list[Path]) -> Table:
    parts = [_indexed_part(archive) for archive in archives]
    if None in parts:
        raise UserError(f"{archives[parts.index(None)]} changed while it was indexed: run the command again")
    found = [part for part in parts if part is not None]
    table: Table = {name: np.concatenate([part[name] for part in found]) for name in PART}
    table["archive"] = np.repeat(np.arange(len(found)), [len(part["id"]) for part in found])
    order = np.argsort(table["id"], kind="stable")
    table = {name: column[order] for name, column in table.items()}
    repeated = np.flatnonzero(table["id"][1:] == table["id"][:-1])
    if len(repeated):
        first, second = (archives[n].name for n in table["archive"][repeated[0] : repeated[0] + 2].tolist())
        raise UserError(f"the image {int(table['id'][repeated[0]]):016x} is in {first} and in {second}")
    return table

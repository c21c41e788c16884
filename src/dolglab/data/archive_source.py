"""Images read at random out of larger files: GLDv2's tar archives, and the LitData chunks that `task=pack` wrote."""

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

# Of each image, by ascending id: its id, the position of its file, and where it starts and how long it is, in bytes.
COLUMNS = {"id": np.uint64, "archive": np.uint16, "offset": np.int64, "size": np.int64}
Table = dict[str, NDArray[Any]]

# Beside archives: the indexes of each of them and of all. Of an image in one archive `PART` is known.
INDEX_FORMAT, INDEX_FOLDER, INDEX_CURRENT = 1, ".index", "current.json"
PART = ("id", "offset", "size")
IMAGE_NAME = re.compile(r"([0-9a-f]{16})\.jpg")
# An archive ends with two blocks of zeros, filled up to a record of 20 blocks.
BLOCK = 512
MAX_END = 22 * BLOCK
ADVICE = "delete it, and `dolglab prepare task=gldv2` fetches it again"
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

    `packed_with` are the orientation and colour that they were packed with.
    """

    advice = "pack them again, or list only images that are there"

    def open_files(self) -> tuple[Path, list[str], Table]:
        """Raises UserError where nothing was packed, or where chunks are missing or of another size than written."""
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

    Raises UserError for a place that cannot be read, or that holds no packed images.
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
            self.packed_with = _packed_with(about["packed"])
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
        place = self.folder / name
        for _ in range(CHUNK_TRIES):
            if not place.exists():
                with self._locked(name):
                    if not place.exists():
                        write_bytes(place, self._download(name))
                # One process at a time, or one would ask for the size of what another has just dropped.
                with self._locked(CACHE):
                    self._evict(place)
            try:
                return super().read(position)
            except FileNotFoundError:
                continue
        raise OSError(f"{name} is dropped faster than it is read: raise data.cache_gb")

    def __reduce__(self) -> tuple[Any, ...]:
        """As `ArchiveSource`."""
        return type(self), (self.root, self.split, self.ids, self.url, self.cache_gb)

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


class TarSource(ArchiveSource):
    """Images of `root/SPLIT/*.tar`, indexed by `index_archives`."""

    advice = "fetch the other archives and index them (mode=index), or list only images that are there"

    def open_files(self) -> tuple[Path, list[str], Table]:
        """Raises UserError where there is no index, or one of other archives than are there."""
        folder = self.root / self.split
        how = f"`dolglab prepare task=gldv2 root={self.root} split={self.split} mode=index` makes it"
        try:
            about = json.loads((folder / INDEX_FOLDER / INDEX_CURRENT).read_text())
            if about["format"] != INDEX_FORMAT:
                raise ValueError
            table = open_table(folder / INDEX_FOLDER / about["tag"])
            archives = [str(name) for name, _, _ in about["archives"]]
            same = about["archives"] == archive_stamps([folder / name for name in archives])
        except FileNotFoundError:
            raise UserError(f"the archives of {folder} have no index, or are gone: {how}") from None
        except OSError as error:
            raise UserError(f"the index of {folder} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, EOFError):
            raise UserError(f"the index of {folder} is damaged: {how} anew") from None
        if not same:
            raise UserError(f"the archives of {folder} are not those that were indexed: {how} anew")
        # What a scan that goes on compares.
        self.stamp = str(about["tag"])
        return folder, archives, table


def index_archives(folder: str | Path, workers: int = 4) -> Path:
    """Index the tar archives of a folder and return the index's path; archives that are indexed are not read again.

    Raises UserError for no archives, one that is damaged, cut short or unsafe, an image that lies in two of them, a
    folder that cannot be written or that another process prepares.
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
    """Name, size and date of each archive: what an index is valid for."""
    return [[path.name, (stat := path.stat()).st_size, stat.st_mtime_ns] for path in archives]


def read_headers(archive: Path) -> Table:
    """Ids, offsets and sizes of an archive's images, in its order; files that are no GLDv2 images are passed over.

    Raises UserError for an archive that is damaged or cut short, and for links, devices, and names that are absolute
    or lead out.
    """
    found: list[tuple[int, int, int]] = []
    try:
        with tarfile.open(archive, "r:") as tar:
            while (member := tar.next()) is not None:
                match = IMAGE_NAME.fullmatch(safe_name(member, archive).name)
                if member.isfile() and match:
                    found.append((int(match[1], 16), member.offset_data, member.size))
                # The library keeps every header otherwise.
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
            end = tar.offset
        with archive.open("rb") as file:
            file.seek(end)
            rest = file.read(MAX_END + 1)
        if not BLOCK <= len(rest) <= MAX_END or any(rest):
            raise UserError(f"{archive} is cut short or damaged after {len(found)} images: {ADVICE}")
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} is no whole tar archive ({error}): {ADVICE}") from error
    except OSError as error:
        raise UserError(f"{archive} cannot be read: {error.strerror}") from error
    return {name: np.array([row[place] for row in found], COLUMNS[name]) for place, name in enumerate(PART)}


def safe_name(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    """A member's name. Raises UserError for links, devices, files with holes, and names that lead out."""
    name = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()) or member.issparse() or name.is_absolute() or ".." in name.parts:
        raise UserError(f"{archive} holds {member.name!r}, which is no plain file inside it: refused")
    return name


def _index_one(archive: Path) -> None:
    """Write an archive's part; its stamp is taken first, so that an archive that changes meanwhile is read again."""
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
    """An archive's part; None where there is none, or where it is of another state of the archive."""
    try:
        with _part_path(archive).open("rb") as file, np.load(file, allow_pickle=False) as part:
            if json.loads(str(part["stamp"])) != [INDEX_FORMAT, *archive_stamps([archive])[0]]:
                return None
            return {name: part[name] for name in PART}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _packed_with(about: Mapping[str, object]) -> tuple[str, str]:
    """The orientation and colour of what was packed; before there was a choice of these, colours were ignored."""
    return str(about["orientation"]), str(about.get("colour", "ignore"))


def _join(folder: Path, archives: list[Path]) -> Path:
    """The archives' parts as one sorted table."""
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
    print(f"{folder}: {len(np.load(home / 'id.npy', mmap_mode='r')):,} images in {len(archives)} archives are indexed")
    return home


def _table(archives: list[Path]) -> Table:
    parts = [_indexed_part(archive) for archive in archives]
    if None in parts:
        raise UserError(f"{archives[parts.index(None)]} changed while it was indexed: run again")
    found = [part for part in parts if part is not None]
    table: Table = {name: np.concatenate([part[name] for part in found]) for name in PART}
    table["archive"] = np.repeat(np.arange(len(found)), [len(part["id"]) for part in found])
    order = np.argsort(table["id"], kind="stable")
    table = {name: column[order] for name, column in table.items()}
    repeated = np.flatnonzero(table["id"][1:] == table["id"][:-1])
    if len(repeated):
        first, second = (archives[n].name for n in table["archive"][repeated[0] : repeated[0] + 2].tolist())
        raise UserError(f"the image {int(table['id'][repeated[0]]):016x} lies in {first} and again in {second}")
    return table

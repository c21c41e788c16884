"""Sources of encoded images, addressed by position; names and ids are numpy arrays instead of Python lists."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import ImageSource
from dolglab.data.long_lists import put_together
from dolglab.errors import UserError
from dolglab.io import read_bytes

# Extensions of image files; the format itself is recognised by the first bytes.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    | {".tif", ".tiff", ".btf", ".tf8", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jxl"}
    | {".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif"}
)
# Raw photographs, which must be developed first.
RAW_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f", ".3fr"}
    | {".iiq", ".rwl", ".raw"}
)
# Folders without users' photos: thumbnails, recycle bins and snapshots of NAS and Windows, and the extra files in
# archives made on Macs.
SYSTEM_FOLDERS = frozenset(
    {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot", "lost+found", "$recycle.bin"}
    | {"recycler", "system volume information", "network trash folder", "__macosx"}
)
# Threads that ask for sizes of files, which is slow on a network file system, and the number of files per thread.
STAT_THREADS, STAT_BATCH = 16, 4096
# Number of missing files that an error message names.
MISSING_SHOWN = 5
# Number of bytes that are compared before two files of equal size are read completely.
MIDDLE = 4096


class FolderSource:
    """Files below a root, by relative path, stored as fixed-width bytes (one array instead of a list of strings)."""

    def __init__(self, root: str | Path, names: list[str] | NDArray[np.bytes_]) -> None:
        self.root = Path(root)
        self._names = encode_names(names) if isinstance(names, list) else names

    def __len__(self) -> int:
        return len(self._names)

    def name(self, position: int) -> str:
        """The file's path relative to the root."""
        return os.fsdecode(self._names[position])

    def size(self, position: int) -> int:
        """The size of the file in bytes; 0 if it is missing."""
        return file_size(self.root / self.name(position)) or 0

    def read(self, position: int) -> bytes:
        """The file's bytes. Raises OSError."""
        return read_bytes(self.root / self.name(position))

    def take(self, rows: NDArray[np.int64]) -> FolderSource:
        """Some of the images, in that order."""
        return FolderSource(self.root, self._names[rows])


class GLDv2Source(FolderSource):
    """Unpacked images of a GLDv2 split, `root/SPLIT/a/b/c/ID.jpg`, by their 16-hex ids, stored as uint64.

    Args:
        root: the data set's folder.
        split: train, index or test.
        ids: the images, in the order of their positions.
    """

    def __init__(self, root: str | Path, split: str, ids: NDArray[np.uint64]) -> None:
        self.root = Path(root)
        self.split = split
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, position: int) -> str:
        """`split/a/b/c/ID.jpg`, even if it is not unpacked."""
        return gldv2_name(self.split, int(self.ids[position]))

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Some of the images, in that order."""
        return type(self)(self.root, self.split, self.ids[rows])


class JoinedSource:
    """The images of several sources, one after another."""

    def __init__(self, *parts: ImageSource) -> None:
        self.parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def name(self, position: int) -> str:
        """The image's name in its own source."""
        source, inner = self._locate(position)
        return source.name(inner)

    def size(self, position: int) -> int:
        """The size of the image in bytes; 0 if it is missing."""
        source, inner = self._locate(position)
        return source.size(inner)

    def read(self, position: int) -> bytes:
        """The image's bytes. Raises OSError."""
        source, inner = self._locate(position)
        return source.read(inner)

    def _locate(self, position: int) -> tuple[ImageSource, int]:
        part = bisect_right(self._ends, position)
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)} images")
        return self.parts[part], position - (self._ends[part - 1] if part else 0)


class OrientedSource:
    """A source's JPEGs with replaced EXIF orientations, so that every reader turns them accordingly.

    Args:
        source: the images.
        orientations: EXIF orientations, 1 to 8, of some images by name; the others are not turned.
    """

    def __init__(self, source: ImageSource, orientations: Mapping[str, int]) -> None:
        self.source, self.orientations = source, orientations

    def __len__(self) -> int:
        return len(self.source)

    def name(self, position: int) -> str:
        """The image's name in the source."""
        return self.source.name(position)

    def size(self, position: int) -> int:
        """The size of the stored image in bytes; 0 if it is missing."""
        return self.source.size(position)

    def read(self, position: int) -> bytes:
        """The image with its orientation. Raises OSError."""
        # Imported here, because listing files does not need it.
        from dolglab.data.image_formats import with_orientation

        return with_orientation(self.source.read(position), self.orientations.get(self.name(position), 1))


def gldv2_name(split: str, number: int) -> str:
    """An image's path in GLDv2's layout, whose folders are the first three of its 16 hex digits.

    >>> gldv2_name("train", 0x00A1B2C3D4E5F607)
    'train/0/0/a/00a1b2c3d4e5f607.jpg'
    """
    name = f"{number:016x}"
    return f"{split}/{name[0]}/{name[1]}/{name[2]}/{name}.jpg"


def encode_names(names: Sequence[str]) -> NDArray[np.bytes_]:
    """Names in the file system's encoding, in one array of fixed width."""
    return np.array([os.fsencode(name) for name in names], dtype=np.bytes_)


def is_visible(name: str) -> bool:
    """Whether a name is neither hidden (previews, checkpoints, macOS's `._NAME.jpg`) nor that of a system folder.

    >>> is_visible("photos"), is_visible(".cache"), is_visible("@eaDir")
    (True, False, False)
    """
    return not name.startswith(".") and name.lower() not in SYSTEM_FOLDERS


def is_image(name: str) -> bool:
    """Whether a file name is that of an image.

    >>> is_image("a.JPG"), is_image("notes.txt")
    (True, False)
    """
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def file_size(path: Path) -> int | None:
    """The size of a file in bytes; None if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def file_sizes(root: Path, names: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """The size of each file below `root` in bytes, (N,); -1 for missing files."""
    folder = os.path.join(os.fsencode(root), b"")

    def size(name: bytes) -> int:
        try:
            return os.stat(folder + name).st_size
        except (OSError, ValueError):
            return -1

    def sizes(start: int) -> NDArray[np.int64]:
        return np.array([size(name) for name in names[start : start + STAT_BATCH].tolist()], np.int64)

    with ThreadPoolExecutor(STAT_THREADS) as pool:
        return put_together(pool.map(sizes, range(0, len(names), STAT_BATCH)), np.int64)


def first_copies(root: Path, names: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """For each file below `root` the position of the first file with the same bytes, (N,), usually its own.

    Sizes are compared first, then, for equal sizes, a part from the middle; only files that are still equal are read
    completely. Files that are empty or cannot be read have no copies.
    """
    sizes = file_sizes(root, names)
    folder = os.path.join(os.fsencode(root), b"")

    def content(position: int, length: int | None) -> tuple[int, bytes] | None:
        size = int(sizes[position])
        try:
            with open(folder + names[position], "rb") as file:
                # Headers are often equal; the middle parts of two photos of equal size hardly ever are.
                file.seek(0 if length is None else max(0, (size - length) // 2))
                read = file.read(length) if length else hashlib.file_digest(file, "sha256").digest()
        except OSError:
            return None
        return size, read

    first = np.arange(len(names))
    alike = [rows for rows in _alike(sizes.tolist()) if sizes[rows[0]] > 0]
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        for length in (MIDDLE, None):
            rows = [row for group in alike for row in group]
            contents = list(pool.map(content, rows, [length] * len(rows)))
            alike = [[rows[at] for at in group] for group in _alike(contents) if contents[group[0]] is not None]
    for rows in alike:
        first[rows] = min(rows)
    return first


def _alike(values: Iterable[Hashable]) -> list[list[int]]:
    """The ascending positions of each value that occurs more than once."""
    found: dict[Hashable, list[int]] = {}
    for position, value in enumerate(values):
        found.setdefault(value, []).append(position)
    return [positions for positions in found.values() if len(positions) > 1]


def require_all(root: Path, names: NDArray[np.bytes_], sizes: NDArray[np.int64], advice: str) -> None:
    """Raise UserError counting the files that `file_sizes` did not find, with the first names and the advice."""
    missing = np.flatnonzero(sizes < 0)
    if len(missing):
        first = ", ".join(os.fsdecode(name) for name in names[missing[:MISSING_SHOWN]].tolist())
        first += f" and {len(missing) - MISSING_SHOWN:,} more" if len(missing) > MISSING_SHOWN else ""
        raise UserError(f"{len(missing):,} of {len(names):,} images are not in {root}: {first} ({advice})")


def checked_seed(seed: int) -> int:
    """`seed`, unchanged. Raises UserError below 0, which numpy and hashing do not accept."""
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed must be a whole number from 0, not {seed}")
    return seed


def stable_ids(names: list[str], seed: int = 0) -> NDArray[np.uint64]:
    """A 64-bit id for each name, which does not depend on machine, order or process.

    >>> stable_ids(["landmark/1.jpg"]).tolist()
    [6817392550084030613]
    """
    key = checked_seed(seed).to_bytes(8, "little")
    digests = b"".join(hashlib.blake2b(os.fsencode(name), digest_size=8, key=key).digest() for name in names)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def hash_share(ids: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each 64-bit id, by splitmix64's mixing, for splits that do not depend on order."""
    with np.errstate(over="ignore"):
        x = ids + np.uint64(0x9E3779B97F4A7C15) * np.uint64(checked_seed(seed) + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) / 2**53

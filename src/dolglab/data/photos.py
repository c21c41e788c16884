"""Photos in files and object stores: listing, and reading of pixels, cropped to a box and shrunk."""

from __future__ import annotations

import errno
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import accumulate
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from dolglab.data.addresses import guard, os_errors, read_address, read_allowed
from dolglab.data.colour import Pixels
from dolglab.data.image_errors import (
    MAX_PIXELS,
    BrokenImageError,
    TooLargeError,
    broken_image_errors,
    check_sides,
    reason,
)
from dolglab.data.image_opening import open_picture
from dolglab.data.image_reading import MAX_SHRINKING, READ_ALL, Reading, crop_query, decode, decode_shrunk, shrink
from dolglab.data.sources import is_image, is_visible, stable_ids
from dolglab.errors import UserError
from dolglab.io import read_bytes, retry_io

Box = tuple[float, float, float, float]
# Smallest side, as `data.min_side` in training, and smallest number of pixels: narrow panoramas are accepted.
MIN_SIDE, MIN_PIXELS = 16, 10_000
# Properties of objects in object stores that change with the object.
VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")


@dataclass(frozen=True)
class PhotoFile:
    """A photo's file.

    Attributes:
        name: absolute path, or address.
        size: size in bytes.
        changed: modification time in nanoseconds since 1970; in an object store a number for its version, or 0.
        ctime: time of the last change of content or status in nanoseconds; None in an object store.
        identity: equal for two names of one file; None if unknown.
        digest: digest of the bytes that were described before, if they may be unchanged: see `digest_of`.
        stored: the address comes from a library; see `check_allowed`.
    """

    name: str
    size: int
    changed: int
    ctime: int | None = None
    identity: str | None = None
    digest: bytes | None = None
    stored: bool = False

    def read(self) -> bytes:
        """The file's bytes.

        Raises OSError if they cannot be read, even after a retry; NotAllowedError for an address from a library.
        """
        if "://" not in self.name:
            return retry_io(read_bytes, self.name)
        return retry_io(read_allowed if self.stored else read_address, self.name)


def digest_of(data: bytes) -> bytes:
    """A digest of a file's bytes, 16 bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


@dataclass
class LeftOut:
    """Files and folders that are not photos.

    Attributes:
        others: number of files that are not photos by their names, by extension.
        unreadable: folders that could not be read, and broken links.
        links: files and folders that are links out of the folder.
    """

    others: Counter[str] = field(default_factory=Counter)
    unreadable: list[OSError] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def add_other(self, name: str) -> None:
        """Count a file by its extension."""
        self.others[Path(name).suffix.lower() or "no suffix"] += 1


def files_below(place: str, exclude: Sequence[str] = (), left_out: LeftOut | None = None) -> Iterator[PhotoFile]:
    """Every photo below a folder or prefix, or the file itself.

    Hidden files and folders, and system folders of a NAS, are left out; links inside a folder are not followed out of
    it.

    Args:
        exclude: patterns of files and folders that are also left out, see `is_excluded`.
        left_out: records files and folders that are not photos.

    Raises UserError if `place` does not exist.
    """
    left_out = LeftOut() if left_out is None else left_out
    if "://" in place:
        yield from _object_store_files(place, exclude, left_out)
        return
    path = Path(place)
    if path.is_dir():
        yield from _folder_files(path.resolve(), exclude, left_out)
    elif not path.is_file():
        raise UserError(f"{place}: no such file or folder")
    elif not is_excluded(place, exclude):
        yield local_file(path.parent.resolve() / path.name)


def is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the name of a file or folder, or its path below the given folder.

    * and ? match any characters, including /.

    >>> is_excluded("2019/thumbs", ["thumbs"]), is_excluded("2019/a.jpg", ["20*/b*"]), is_excluded("b.jpg", ["/b.*"])
    (True, False, True)
    """
    forms = path.rpartition("/")[2], path, f"/{path}"
    return any(fnmatchcase(form, pattern.rstrip("/")) for form in forms for pattern in patterns)


def _folder_files(root: Path, exclude: Sequence[str], left_out: LeftOut) -> Iterator[PhotoFile]:
    for folder, folders, names in os.walk(root, onerror=left_out.unreadable.append):
        below = os.path.relpath(folder, root)

        def wanted(name: str, below: str = below) -> bool:
            return is_visible(name) and not is_excluded(os.path.normpath(f"{below}/{name}"), exclude)

        # Links to folders are not followed.
        folders[:] = sorted(filter(wanted, folders))
        for path in (f"{folder}/{name}" for name in folders):
            if _leads_out(path, root):
                left_out.links.append(path)
        for name in sorted(filter(wanted, names)):
            path = Path(folder, name)
            if not is_image(name):
                left_out.add_other(name)
            elif _leads_out(str(path), root):
                left_out.links.append(str(path))
            elif path.is_file():
                try:
                    yield local_file(path)
                except OSError as error:
                    # It vanished in between.
                    left_out.unreadable.append(error)
            elif path.is_symlink():
                left_out.unreadable.append(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)))


def _leads_out(path: str, root: Path) -> bool:
    return os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(root)


def local_file(path: Path) -> PhotoFile:
    """A file on this machine. Raises OSError."""
    stat = path.stat()
    # File systems without inode numbers return 0; if numbers are reused, size and time distinguish files.
    identity = f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}" if stat.st_ino else None
    return PhotoFile(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, identity)


def _object_store_files(prefix: str, exclude: Sequence[str], left_out: LeftOut) -> Iterator[PhotoFile]:
    try:
        system, root = fsspec.core.url_to_fs(prefix)
        found = system.find(root, detail=True)
    except (ImportError, OSError, ValueError) as error:
        raise UserError(f"{prefix} cannot be listed: {error}") from error
    for name, info in sorted(found.items()):
        # For a single object, only its own name.
        below = name.removeprefix(root).strip("/") or name.rpartition("/")[2]
        paths = accumulate(below.split("/"), "{}/{}".format)
        if not all(is_visible(path.rpartition("/")[2]) and not is_excluded(path, exclude) for path in paths):
            continue
        if is_image(below):
            yield _object_file(system.unstrip_protocol(name), info)
        else:
            left_out.add_other(below)


def stored_photo(name: str) -> PhotoFile:
    """A single file or object that a library names; folders and prefixes are refused.

    Raises OSError if it does not exist, and NotAllowedError for an address that the user does not allow.
    """
    if "://" not in name:
        if not os.path.isfile(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return local_file(Path(name).parent.resolve() / Path(name).name)
    options = guard(name)
    with os_errors():
        system, path = fsspec.core.url_to_fs(name, **options)
        info = system.info(path)
    if info.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    return replace(_object_file(name, info), stored=True)


def _object_file(name: str, info: Mapping[str, Any]) -> PhotoFile:
    version = next((str(info[key]) for key in VERSIONS if info.get(key) is not None), None)
    changed = 0 if version is None else int(stable_ids([version])[0] >> np.uint64(1))
    return PhotoFile(name, int(info.get("size") or 0), changed)


def check_size(height: int, width: int) -> None:
    """Raise BrokenImageError for a picture that is too small to describe, such as an icon, but not for a panorama.

    Such a picture has a side below `MIN_SIDE` pixels and fewer than `MIN_PIXELS` pixels.
    """
    if height * width < MIN_PIXELS:
        check_sides(height, width, MIN_SIDE)


def photo_pixels(
    name: str, max_side: int, box: Box | None = None, reading: Reading = READ_ALL, stored: bool = False
) -> Pixels:
    """Pixels of a photo's file or address, like `query_pixels`; `stored` says that it comes from a library.

    Raises UserError like `query_pixels` and `PhotoFile.read`, and if it does not exist.
    """
    try:
        data = PhotoFile(name, 0, 0, stored=stored).read()
    except OSError as error:
        raise UserError(f"{name} cannot be read: {reason(error)}") from error
    return query_pixels(data, name, max_side, box, reading)


def query_pixels(
    data: bytes,
    name: str,
    max_side: int,
    box: Box | None = None,
    reading: Reading = READ_ALL,
    max_pixels: int = MAX_PIXELS,
    shape: tuple[int, int] | None = None,
) -> Pixels:
    """An encoded photo's pixels, (H, W, 3): cropped to the box x1, y1, x2, y2 (pixels), if given, then shrunk.

    The box refers to the photo at its own size or, if `shape` is given, at that height and width.

    A scan with more than `max_pixels` is not decoded at full size; the box is then cropped from the largest size within
    the limit. Raises UserError for a photo that cannot be read, and for a box that is not inside it.
    """
    try:
        if box is None:
            return decode_shrunk(data, max_side, reading, max_pixels)
        pixels, (height, width) = _decode_for_box(data, reading, max_pixels)
    except BrokenImageError as error:
        raise UserError(f"{name} cannot be read: {reason(error)}") from error
    height, width = shape or (height, width)
    x1, y1, x2, y2 = box
    if x1 > x2 or y1 > y2:
        raise UserError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} is empty: x1,y1 must be its top left corner")
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height) or round(x2) <= round(x1) or round(y2) <= round(y1):
        raise UserError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} is not inside {name}, of {width} x {height} pixels")
    scale = pixels.shape[1] / width, pixels.shape[0] / height
    inside = np.array(box, np.float64) * [*scale, *scale]
    if scale != (1, 1):
        # A thin box keeps at least one pixel.
        inside[:2] = np.minimum(np.floor(inside[:2]), np.array(pixels.shape[1::-1]) - 1)
        inside[2:] = np.maximum(inside[2:], inside[:2] + 1)
    return shrink(crop_query(pixels, inside, "pil"), max_side)


def _decode_for_box(data: bytes, reading: Reading, max_pixels: int) -> tuple[Pixels, tuple[int, int]]:
    """An image's pixels, (H, W, 3), at full size or as large as `max_pixels` allows, and its original size."""
    try:
        pixels = decode(data, reading, max_pixels)
        return pixels, (pixels.shape[0], pixels.shape[1])
    except TooLargeError:
        with broken_image_errors():
            # Only the size is read; it may be anything.
            width, height = open_picture(data, MAX_SHRINKING, MAX_SHRINKING).size
        side = math.floor(max(height, width) * math.sqrt(max_pixels / (height * width)))
        pixels = decode_shrunk(data, side, reading, max_pixels)
        # The header has the size before the image is turned upright.
        turned = (pixels.shape[0] > pixels.shape[1]) != (height > width)
        return pixels, (width, height) if turned else (height, width)


def read_box(text: str) -> Box:
    """A box from finite numbers "x1,y1,x2,y2". Raises UserError for anything else.

    >>> read_box("0,0,640,480")
    (0.0, 0.0, 640.0, 480.0)
    """
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        x1 = y1 = x2 = y2 = float("nan")
    if not np.isfinite((x1, y1, x2, y2)).all():
        raise UserError(f"a box must be x1,y1,x2,y2 in pixels, not {text}")
    return x1, y1, x2, y2

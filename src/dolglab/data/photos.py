"""Photos in files and object stores: which there are, and their pixels, cut to a box and shrunk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np

from dolglab.data.colour import Pixels
from dolglab.data.image_errors import BrokenImageError, reason
from dolglab.data.image_reading import READ_ALL, Reading, crop_query, decode, decode_shrunk, shrink
from dolglab.data.sources import is_image, is_visible, stable_ids
from dolglab.errors import UserError
from dolglab.io import retry_io

Box = tuple[float, float, float, float]
# What object stores say of an object, that is something else when the object is.
VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")


@dataclass(frozen=True)
class PhotoFile:
    """A photo's file: absolute path or address, bytes, and when it was changed (nanoseconds, or 0)."""

    name: str
    size: int
    changed: int

    def read(self) -> bytes:
        """Its bytes. Raises OSError when they cannot be read, also a moment later."""
        return retry_io(self._read_once)

    def _read_once(self) -> bytes:
        if "://" not in self.name:
            return Path(self.name).read_bytes()
        with fsspec.open(self.name, "rb") as file:
            return file.read()  # pyright: ignore[reportAttributeAccessIssue]


def files_below(
    place: str,
    skipped: Callable[[str], None] = lambda name: None,
    failed: Callable[[OSError], None] = lambda error: None,
) -> Iterator[PhotoFile]:
    """Every photo below a folder or prefix, or the file itself.

    Hidden files and folders are what tools leave, and are left out; links inside a folder are not followed out of it.

    Args:
        skipped: told the names of other files that are no photos by their names.
        failed: told of folders that cannot be looked into.

    Raises UserError for a place that is not there.
    """
    if "://" in place:
        yield from _object_store_files(place, skipped)
        return
    path = Path(place)
    if path.is_dir():
        yield from _folder_files(path.resolve(), skipped, failed)
    elif path.is_file():
        yield _local_file(path.parent.resolve() / path.name)
    else:
        raise UserError(f"{place}: no such file or folder")


def _folder_files(root: Path, skipped: Callable[[str], None], failed: Callable[[OSError], None]) -> Iterator[PhotoFile]:
    for folder, folders, names in os.walk(root, onerror=failed):
        folders[:] = sorted(filter(is_visible, folders))
        for name in sorted(filter(is_visible, names)):
            path = Path(folder, name)
            if not is_image(name):
                skipped(name)
            elif os.path.isfile(path) and path.resolve().is_relative_to(root):
                yield _local_file(path)


def _local_file(path: Path) -> PhotoFile:
    stat = path.stat()
    return PhotoFile(str(path), stat.st_size, stat.st_mtime_ns)


def _object_store_files(prefix: str, skipped: Callable[[str], None]) -> Iterator[PhotoFile]:
    try:
        system, root = fsspec.core.url_to_fs(prefix)
        found = system.find(root, detail=True)
    except (ImportError, OSError, ValueError) as error:
        raise UserError(f"{prefix} cannot be listed: {error}") from error
    for name, info in sorted(found.items()):
        base = name.rpartition("/")[2]
        if is_image(base) and is_visible(base):
            version = next((str(info[key]) for key in VERSIONS if info.get(key) is not None), None)
            changed = 0 if version is None else int(stable_ids([version])[0] >> np.uint64(1))
            yield PhotoFile(system.unstrip_protocol(name), int(info.get("size") or 0), changed)
        elif is_visible(base):
            skipped(base)


def photo_pixels(name: str, max_side: int, box: Box | None = None, reading: Reading = READ_ALL) -> Pixels:
    """Pixels of a photo's file or address, as `query_pixels`. Raises UserError as that, and where it is not there."""
    try:
        data = PhotoFile(name, 0, 0).read()
    except OSError as error:
        raise UserError(f"{name} cannot be read: {reason(error)}") from error
    return query_pixels(data, name, max_side, box, reading)


def query_pixels(data: bytes, name: str, max_side: int, box: Box | None = None, reading: Reading = READ_ALL) -> Pixels:
    """An encoded photo's pixels, (H, W, 3): inside the box x1, y1, x2, y2 (pixels) where one is given, then shrunk.

    Raises UserError for a photo that cannot be read and for a box that is not inside it.
    """
    try:
        if box is None:
            return decode_shrunk(data, max_side, reading)
        pixels = decode(data, reading)
    except BrokenImageError as error:
        raise UserError(f"{name} cannot be read: {reason(error)}") from error
    (x1, y1, x2, y2), (height, width) = box, pixels.shape[:2]
    if x1 > x2 or y1 > y2:
        raise UserError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} ends before it begins: x1,y1 is its top left corner")
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height) or round(x2) <= round(x1) or round(y2) <= round(y1):
        raise UserError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} is not inside {name}, of {width} x {height} pixels")
    return shrink(crop_query(pixels, np.array(box, np.float64), "pil"), max_side)


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
        raise UserError(f"a box is x1,y1,x2,y2 in pixels, not {text}")
    return x1, y1, x2, y2

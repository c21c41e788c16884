"""Find images with problems before training: broken ones, and unusual ones that can be read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from dolglab.concurrency import process_map, resolve_workers
from dolglab.contracts import Orientation
from dolglab.data.gldv2 import Kind, image_source, listed_ids
from dolglab.data.image_errors import BrokenImageError, check_sides, has_vanished, reason
from dolglab.data.image_formats import image_orientation, jpeg_size
from dolglab.data.image_reading import Reading, checked_reading, decode
from dolglab.data.sources import GLDv2Source
from dolglab.data.tiff import is_tiff, open_tiff
from dolglab.errors import UserError, pluralize
from dolglab.io import csv_text, folder_lock, retry_io, write_text

# Images between the marks from which an interrupted scan continues.
CHUNK_SIZE = 2000
TABLE, SKIP_LIST = "bad_images.csv", "skip_list.txt"
# Pillow's names for the formats of a camera's .jpg files; an MPO has more pictures after the first.
JPEG_FORMATS = ("JPEG", "MPO")
# The finding for a listed image without a file.
MISSING = "the file is missing"


class Finding(NamedTuple):
    """Why an image cannot be used or, if it can, how it is converted."""

    reason: str
    used: bool


class _Chunk(NamedTuple):
    """Images to inspect, and the file that is written when they are done."""

    source: GLDv2Source
    reading: Reading
    part: Path


def scan_gldv2(
    root: str | Path,
    split: str = "train",
    train_csv: str = "train_clean.csv",
    source: Kind = "auto",
    orientation: Orientation = "exif",
    min_side: int = 16,
    workers: int | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> Path:
    """Read every image of a split, and write what is wrong or unusual to `root/SPLIT`.

    `bad_images.csv` lists images with the reason, and whether they are used nevertheless; `skip_list.txt` has the ids
    of unusable ones, for `data.exclude_images`. An interrupted scan continues after its last `chunk_size` images. By
    default all cores are `workers`.

    Returns the skip list's path. Raises UserError for an unknown split, a missing list or missing images, and a folder
    that cannot be written or that another process is preparing.
    """
    reading, workers = checked_reading(orientation, "ignore", min_side), resolve_workers(workers)
    folder = Path(root) / split
    images = image_source(root, split, listed_ids(root, split, train_csv), source, probe=False)
    with folder_lock(folder):
        about = json.dumps([chunk_size, *reading, getattr(images, "stamp", None)])
        tag = hashlib.blake2b(images.ids.tobytes() + about.encode(), digest_size=8).hexdigest()
        marks, rows = folder / f".scan-{tag}", np.arange(len(images))
        chunks = [
            _Chunk(images.take(rows[start : start + chunk_size]), reading, marks / f"{start:09}.csv")
            for start in range(0, len(images), chunk_size)
        ]
        for stale in set(folder.glob(".scan-*")) - {marks}:
            shutil.rmtree(stale, ignore_errors=True)
        left = [chunk for chunk in chunks if not chunk.part.exists()]
        try:
            list(process_map(_scan, left, workers, "scanning"))
            found = [row for chunk in chunks for row in csv.reader(io.StringIO(chunk.part.read_text()))]
            write_text(folder / TABLE, csv_text([("name", "reason", "used"), *found]))
            unusable = [f"{Path(name).stem}  # {why}\n" for name, why, used in found if used == "no"]
            write_text(folder / SKIP_LIST, "".join(unusable))
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
        shutil.rmtree(marks, ignore_errors=True)
    reasons = Counter(why for _, why, _ in found)
    missing, odd = reasons[MISSING], len(found) - len(unusable)
    counts = f"{len(unusable) - missing:,} cannot be used, {odd:,} are odd but used, {missing:,} are missing"
    print(f"{len(images) - missing:,} images read: {counts} ({folder / TABLE})")
    for why, number in reasons.most_common(10):
        print(f"  {number:,} x {why}")
    if unusable:
        print(f"data.exclude_images={folder / SKIP_LIST} leaves them out of training")
    return folder / SKIP_LIST


def inspect(data: bytes, reading: Reading) -> Finding | None:
    """Read a whole image like training does; None if there is nothing to report."""
    try:
        _check_readable(data, reading)
    except BrokenImageError as error:
        return Finding(reason(error), used=False)
    try:
        odd = ", ".join(_oddities(data, reading))
    except Exception:  # Broken metadata can make Pillow raise nearly anything; the pixels were complete.
        odd = "its metadata cannot be read"
    return Finding(odd, used=True) if odd else None


def _check_readable(data: bytes, reading: Reading) -> None:
    """Raise BrokenImageError for an unreadable image; all bytes of a JPEG are read, at an eighth of its size."""
    shape = jpeg_size(data)
    if shape is None:
        height, width = decode(data).shape[:2]
        check_sides(height, width, reading.min_side)
        return
    check_sides(*shape, reading.min_side)
    try:
        simplejpeg.decode_jpeg(data, "RGB", min_height=1, min_width=1, fastdct=True, fastupsample=True)
    except ValueError:
        # Pillow can read some images that the strict decoder refuses; it refuses damaged ones too.
        decode(data)


def _oddities(data: bytes, reading: Reading) -> list[str]:
    if is_tiff(data):
        picture = open_tiff(data)
        pages = f", with {pluralize(picture.further, 'further page')}" if picture.further else ""
        deep = f", {picture.page.bitspersample} bits, reduced to the upper 8" if picture.deep else ""
        return [f"TIFF, read anyway{deep}{pages}"]
    with Image.open(io.BytesIO(data)) as image:
        jpeg = image.format in JPEG_FORMATS
        turn = image_orientation(image)
        found = [
            (not jpeg, f"{image.format}, read anyway"),
            (image.mode in ("CMYK", "YCCK"), f"{image.mode}, converted to RGB"),
            (image.mode.startswith("I"), "16 bits, reduced to the upper 8"),
            (not jpeg and getattr(image, "n_frames", 1) > 1, "animated, only its first frame is used"),
            (turn > 1 and reading.orientation == "exif", f"turned upright (EXIF orientation {turn})"),
        ]
    return [what for true, what in found if true]


def _scan(chunk: _Chunk) -> None:
    rows: list[tuple[str, str, str]] = []
    for position in range(len(chunk.source)):
        try:
            finding = inspect(retry_io(chunk.source.read, position), chunk.reading)
        except OSError as error:
            finding = Finding(MISSING if has_vanished(error) else reason(error), used=False)
        if finding is not None:
            rows.append((chunk.source.name(position), finding.reason, "yes" if finding.used else "no"))
    write_text(chunk.part, csv_text(rows))

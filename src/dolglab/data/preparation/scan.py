"""Find the images that training would stumble over, before it does."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dolglab.concurrency import process_map, resolve_workers
from dolglab.contracts import ImageSource, Orientation
from dolglab.data.archive_source import ArchiveSource
from dolglab.data.gldv2 import Kind, image_source, listed_ids
from dolglab.data.image_formats import Finding, inspect
from dolglab.data.image_reading import Reading, checked_reading, reason
from dolglab.data.preparation.lock import preparing
from dolglab.data.sources import HexSource, read_patiently
from dolglab.errors import UserError
from dolglab.io import write_text

# Images between two marks from which a scan that was stopped goes on.
CHUNK = 2000
TABLE, SKIP_LIST = "bad_images.csv", "skip_list.txt"


class _Chunk(NamedTuple):
    """Images to inspect, and the file that is there once that is done."""

    source: HexSource | ArchiveSource
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
) -> Path:
    """Read every image of a split, and write what is wrong or odd below `root/SPLIT`.

    `bad_images.csv` names images, says why, and whether they are used all the same; `skip_list.txt` has the ids of
    those that are not, for `data.exclude_images`. A scan that was stopped goes on where it was. `workers` are all cores
    by default.

    Returns the skip list's path. Raises UserError for a split, list or images that are not there, and a folder that
    cannot be written or that another process prepares.
    """
    reading, workers = checked_reading(orientation, min_side), resolve_workers(workers)
    root = Path(root)
    images = image_source(root, split, listed_ids(root, split, train_csv), source, probe=False)
    home = root / split
    with preparing(home):
        chunks = _chunks(images, reading, home)
        for other in set(home.glob(".scan-*")) - {chunks[0].part.parent}:
            shutil.rmtree(other, ignore_errors=True)
        left = [chunk for chunk in chunks if not chunk.part.exists()]
        try:
            for _ in process_map(_scan, left, workers, "scanning"):
                pass
            found = [row for chunk in chunks for row in csv.reader(io.StringIO(chunk.part.read_text()))]
            _write(home, found)
        except OSError as error:
            raise UserError(f"{home} cannot be written: {error.strerror or error}") from error
        shutil.rmtree(chunks[0].part.parent, ignore_errors=True)
    _say(home, len(images), found)
    return home / SKIP_LIST


def _chunks(images: HexSource | ArchiveSource, reading: Reading, home: Path) -> list[_Chunk]:
    about = json.dumps([CHUNK, *reading, getattr(images, "stamp", None)])
    tag = hashlib.blake2b(images.ids.tobytes() + about.encode(), digest_size=8).hexdigest()
    rows = np.arange(len(images))
    return [
        _Chunk(images.take(rows[start : start + CHUNK]), reading, home / f".scan-{tag}" / f"{start:09}.csv")
        for start in range(0, len(images), CHUNK)
    ]


def _scan(chunk: _Chunk) -> None:
    found = [
        (chunk.source.name(position), finding.reason, "yes" if finding.used else "no")
        for position in range(len(chunk.source))
        if (finding := _inspected(chunk.source, position, chunk.reading)) is not None
    ]
    write_text(chunk.part, _table(found))


def _inspected(source: ImageSource, position: int, reading: Reading) -> Finding | None:
    try:
        return inspect(read_patiently(source, position), reading)
    except OSError as error:
        return Finding(reason(error), used=False)


def _table(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write(home: Path, found: list[list[str]]) -> None:
    write_text(home / TABLE, _table([("name", "reason", "used"), *found]))
    bad = [f"{Path(name).stem}  # {why}\n" for name, why, used in found if used == "no"]
    write_text(home / SKIP_LIST, "".join(bad))


def _say(home: Path, images: int, found: list[list[str]]) -> None:
    bad = sum(used == "no" for _, _, used in found)
    print(f"{images:,} images read: {bad:,} cannot be used, {len(found) - bad:,} are odd but used ({home / TABLE})")
    for why, number in Counter(why for _, why, _ in found).most_common(10):
        print(f"  {number:,} x {why}")
    if bad:
        print(f"data.exclude_images={home / SKIP_LIST} leaves them out of training")

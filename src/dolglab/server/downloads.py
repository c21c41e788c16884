"""What clients download: photos as JPEGs of a bounded size, and marked answers as a zip to train on."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from fastapi import HTTPException
from PIL import Image

from dolglab.errors import UserError
from dolglab.library.catalogue import Photo, printable
from dolglab.library.photos import PhotoFile, photo_pixels
from dolglab.server.owned_files import UNSAFE, numbered_names, safe_name
from dolglab.server.schemas import short_name

# Bytes of a zip that are held in memory (the rest goes to a temporary file), and that are sent at a time.
SPOOL, CHUNK = 8_000_000, 1 << 16
MAX_FOLDER_NAME = 80
# Of the table of marks: the name in the zip, empty where the photo is left out; name and number in the library.
COLUMNS = ("file_in_zip", "photo", "photo_number", "mark")


def check_unchanged(photo: Photo) -> None:
    """Raise HTTPException 410 where a photo's file is not the one that was embedded; object stores are not asked.

    Who can put a link or another file in its place could otherwise have this server show whatever it can read.
    """
    if "://" in photo.name:
        return
    try:
        stat = Path(photo.name).stat()
    except OSError:
        raise file_gone() from None
    if (stat.st_size, stat.st_mtime_ns) != (photo.size, photo.changed):
        raise HTTPException(410, "this photo has changed since it was described: embed its folder again")


def file_gone() -> HTTPException:
    """The error for a photo whose file cannot be read any more."""
    return HTTPException(410, "this photo's file is gone, or cannot be read any more")


def photo_jpeg(name: str, max_side: int) -> bytes:
    """A photo's file as a JPEG of at most `max_side` pixels a side, without what the file says of place and camera.

    Raises HTTPException 410 where it cannot be read.
    """
    try:
        pixels = photo_pixels(name, max_side)
    except UserError:
        raise file_gone() from None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def training_zip(
    name: str, query: tuple[str, bytes] | None, right: Sequence[Photo], wrong: Sequence[Photo]
) -> IO[bytes]:
    """A zip that `data=folder` trains on: a folder `name` with the photos marked right and, where given, the query.

    `name.csv` beside the folder, with `COLUMNS`, lists every mark, those of wrong photos too, whose files are left out:
    they show something else, and not all the same.

    Args:
        query: its file's name and bytes.

    Raises HTTPException 410 for a photo whose file is gone, and 400 as `folder_name`.
    """
    folder, taken = folder_name(name), set[str]()
    rows: list[tuple[str, str, str, str]] = [COLUMNS]
    with ExitStack() as stack:
        spool = stack.enter_context(tempfile.SpooledTemporaryFile(SPOOL))
        with zipfile.ZipFile(spool, "w", zipfile.ZIP_STORED) as archive:
            if query is not None:
                rows.append((_write(archive, folder, taken, *query), query[0], "", "query"))
            for photo in right:
                file = _write(archive, folder, taken, safe_name(photo.name, ".jpg"), _read(photo))
                rows.append((file, short_name(photo.name), str(photo.id), "right"))
            rows += [("", short_name(photo.name), str(photo.id), "wrong") for photo in wrong]
            table = io.StringIO(newline="")
            csv.writer(table).writerows(rows)
            archive.writestr(f"{folder}.csv", table.getvalue())
        spool.seek(0)
        # Who sends the zip closes it.
        stack.pop_all()
    return spool


def iterate_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """What is in a file, which is closed at the end."""
    with file:
        yield from iter(lambda: file.read(CHUNK), b"")


def folder_name(name: str) -> str:
    """A sub-folder's name made of what a person calls a landmark. Raises HTTPException 400 where nothing is left.

    >>> folder_name("old/town.")
    'old_town'
    """
    plain = "".join("_" if c in UNSAFE or not c.isprintable() else c for c in name)
    short = printable(" ".join(plain.split()))[:MAX_FOLDER_NAME].strip(". ")
    if not short:
        raise HTTPException(400, "name what the photos show: it becomes the folder's name")
    return short


def _write(archive: zipfile.ZipFile, folder: str, taken: set[str], name: str, data: bytes) -> str:
    """Write a file under a name that is not taken, whatever the case of its letters; returns its path."""
    free = next(candidate for candidate in numbered_names(name) if candidate.lower() not in taken)
    taken.add(free.lower())
    archive.writestr(f"{folder}/{free}", data)
    return f"{folder}/{free}"


def _read(photo: Photo) -> bytes:
    check_unchanged(photo)
    try:
        return PhotoFile(photo.name, photo.size, photo.changed).read()
    except OSError:
        raise file_gone() from None

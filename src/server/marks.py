"""Marks as a training folder: photos that show the same in one sub-folder, as `data=folder` reads it."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO

from fastapi import HTTPException

from src.library.answers import printable
from src.library.contents import Photo
from src.library.photos import File
from src.server.additions import UNSAFE, safe_name
from src.server.pictures import check_unchanged, gone
from src.server.shown import label

# Bytes of a zip that are held in memory; the rest goes to a temporary file.
HELD = 8_000_000
LONGEST = 80
CHUNK = 1 << 16
# Of the table of marks: the name in the zip, none where the photo is left out; name and number in the library.
COLUMNS = ("file_in_zip", "photo", "photo_number", "mark")


def marks_zip(name: str, query: tuple[str, bytes] | None, right: Sequence[Photo], wrong: Sequence[Photo]) -> IO[bytes]:
    """A zip of a folder `name` with the photos marked right and, where it is given, the query itself (name, bytes).

    `name.csv` beside the folder, with `COLUMNS`, lists every mark, those of wrong photos too, whose files are left out:
    they show something else, and not all the same. Raises HTTPException for a photo whose file is gone.
    """
    held = tempfile.SpooledTemporaryFile(HELD)  # noqa: SIM115 - the answer is sent from it
    try:
        with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as packed:
            _pack(packed, folder_name(name), query, right, wrong)
    except BaseException:
        held.close()
        raise
    held.seek(0)
    return held


def in_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """What is in a file, which is closed at the end."""
    with file:
        yield from iter(lambda: file.read(CHUNK), b"")


def folder_name(name: str) -> str:
    """A sub-folder's name made of what a person calls a landmark. Raises HTTPException 400 where nothing is left."""
    plain = "".join("_" if c in UNSAFE or not c.isprintable() else c for c in name)
    short = printable(" ".join(plain.split()))[:LONGEST].strip(". ")
    if not short:
        raise HTTPException(400, "name what the photos show: it becomes the folder's name")
    return short


def _pack(
    packed: zipfile.ZipFile,
    folder: str,
    query: tuple[str, bytes] | None,
    right: Sequence[Photo],
    wrong: Sequence[Photo],
) -> None:
    taken: set[str] = set()
    rows: list[tuple[str, str, str, str]] = [COLUMNS]
    if query is not None:
        file = f"{folder}/{_unique(query[0], taken)}"
        packed.writestr(file, query[1])
        rows.append((file, query[0], "", "query"))
    for photo in right:
        file = f"{folder}/{_unique(safe_name(photo.name, '.jpg'), taken)}"
        packed.writestr(file, _bytes(photo))
        rows.append((file, label(photo.name), str(photo.id), "right"))
    rows += [("", label(photo.name), str(photo.id), "wrong") for photo in wrong]
    table = io.StringIO(newline="")
    csv.writer(table).writerows(rows)
    packed.writestr(f"{folder}.csv", table.getvalue())


def _unique(name: str, taken: set[str]) -> str:
    stem, dot, suffix = name.rpartition(".")
    number, free = 1, name
    while free.lower() in taken:
        number += 1
        free = f"{stem} ({number}){dot}{suffix}"
    taken.add(free.lower())
    return free


def _bytes(photo: Photo) -> bytes:
    check_unchanged(photo)
    try:
        return File(photo.name, photo.size, photo.changed).read()
    except OSError:
        raise gone() from None

"""Marks as a training folder: photos that show the same in one sub-folder, as `data=folder` reads it."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from PIL import Image

from dolglab.errors import UserError
from dolglab.io import write_bytes, write_text
from dolglab.library.catalogue import Photo, printable
from dolglab.library.library import Library
from dolglab.library.photos import IMAGE_SUFFIXES, PhotoFile, photo_pixels
from dolglab.server.schemas import label
from dolglab.server.security import Worker

# Beside the files.
NAMES = ".added.json"


def keep(path: Path, data: bytes) -> None:
    """Write a file and note that it is the server's."""
    write_bytes(path, data)
    try:
        _write(path.parent, _names(path.parent) | {path.name})
    except OSError:
        path.unlink()
        raise


def is_kept(path: Path) -> bool:
    """Whether the server put it there, into a folder that is no link to elsewhere."""
    return not path.parent.is_symlink() and path.name in _names(path.parent)


def discard(path: Path) -> None:
    """Delete a file of the server's."""
    # First: what somebody else puts there later is not the server's.
    _write(path.parent, _names(path.parent) - {path.name})
    path.unlink(missing_ok=True)


def _names(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / NAMES).read_text()))
    except (FileNotFoundError, ValueError):
        return set()


def _write(folder: Path, names: set[str]) -> None:
    write_text(folder / NAMES, json.dumps(sorted(names)))


LOG = logging.getLogger("dolg.server")
FOLDER = "added-photos"
# Bytes of a name; file systems take 255.
LONGEST = 150
UNSAFE = '/\\:*?"<>|'


def add_photo(
    library: Library,
    data: bytes,
    name: str,
    shape: tuple[int, int],
    descriptor: NDArray[np.float32],
    metadata: Mapping[str, str],
) -> Photo:
    """Keep a photo's file and its descriptor, (1, dim).

    Killed between the two, a process leaves a file that no search finds; `dolglab embed` of that folder takes it in.
    Raises HTTPException 507 where the disk does not take it.
    """
    path = _free(_folder(library), name)
    try:
        keep(path, data)
        about = path.stat()
        _add(library, Photo(str(path), about.st_size, about.st_mtime_ns, shape, metadata=metadata), descriptor)
    except OSError as error:
        raise HTTPException(507, f"the photo cannot be kept: {error.strerror}") from None
    kept = library.catalogue.named(str(path))
    assert kept is not None
    return kept[0]


def remove_photo(library: Library, number: int) -> bool:
    """Take a photo out; whether its file went too, as only one that was added here does.

    Raises HTTPException 404 where the library has no such photo.
    """
    photo = find_photo(library, number)
    library.remove([photo.name])
    path = Path(photo.name)
    if path.parent != library.folder.resolve() / FOLDER or not is_kept(path):
        return False
    discard(path)
    return True


def find_photo(library: Library, number: int) -> Photo:
    """The photo of that number. Raises HTTPException 404 where there is none."""
    photo = library.catalogue.find(number)
    if photo is None:
        raise HTTPException(404, f"the library has no photo {number}")
    return photo


def safe_name(name: str, suffix: str) -> str:
    """A file name made of what somebody calls a photo: no folder, not hidden, an image's suffix, not empty, not long.

    Args:
        suffix: of files of its format, for a name without one.
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    plain = "".join(c if c.isprintable() and c not in UNSAFE else " " for c in last)
    stem, dot, end = " ".join(plain.split()).rpartition(".")
    if (found := dot + end).lower() not in IMAGE_SUFFIXES:
        stem, found = stem + dot + end, suffix
    short = stem.encode(errors="ignore")[:LONGEST].decode(errors="ignore").strip(". ")
    return f"{short or 'photo'}{found}"


def _add(library: Library, photo: Photo, descriptor: NDArray[np.float32]) -> None:
    """Add a photo; where that fails, its file goes too."""
    try:
        library.add([photo], descriptor)
    except Exception as error:
        if library.catalogue.named(photo.name) is None:
            discard(Path(photo.name))
            raise
        # The photo is in; only the tidying after it failed, which the next change tries again.
        LOG.error("tidying the library: %s", error)


def _folder(library: Library) -> Path:
    folder = library.folder.resolve() / FOLDER
    if folder.is_symlink():
        raise HTTPException(403, f"the library's folder {FOLDER} is a link that leads elsewhere: nothing is added")
    return folder


def _free(folder: Path, name: str) -> Path:
    """A path that no file has; the library's lock keeps others from taking it meanwhile."""
    stem, suffix = Path(name).stem, Path(name).suffix
    names = itertools.chain([name], (f"{stem} ({number}){suffix}" for number in itertools.count(2)))
    return next(path for path in map(folder.joinpath, names) if not path.is_symlink() and not path.exists())


# Longer sides in pixels, small pictures that are kept, 20 KB each, and requests that may wait.
SMALL, LARGE = 360, 1600
KEPT, WAITING = 1000, 16


class Pictures:
    """JPEGs of photos, made one at a time."""

    def __init__(self) -> None:
        self._worker = Worker("pictures", WAITING)
        self._small = lru_cache(KEPT)(_jpeg)

    def small(self, photo: Photo) -> bytes:
        """A thumbnail. Raises HTTPException 410 for a photo that is gone, or another than was described."""
        check_unchanged(photo)
        return self._worker(lambda: self._small(photo.name, SMALL, photo.size, photo.changed))

    def large(self, photo: Photo) -> bytes:
        """The photo for a screen. Raises as `small`."""
        check_unchanged(photo)
        return self._worker(lambda: _jpeg(photo.name, LARGE, photo.size, photo.changed))


def check_unchanged(photo: Photo) -> None:
    """Raise HTTPException 410 where a photo's file is not the one that was described.

    Who can put a link or another file in its place could otherwise have this server show whatever it can read.
    """
    if "://" in photo.name:
        return
    try:
        about = Path(photo.name).stat()
    except OSError:
        raise gone() from None
    if (about.st_size, about.st_mtime_ns) != (photo.size, photo.changed):
        raise HTTPException(410, "this photo has changed since it was described: embed its folder again")


def gone() -> HTTPException:
    """A photo whose file cannot be read any more."""
    return HTTPException(410, "this photo's file is gone, or cannot be read any more")


def _jpeg(name: str, side: int, size: int, changed: int) -> bytes:
    try:
        pixels = photo_pixels(name, side)
    except UserError:
        raise gone() from None
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "JPEG", quality=90)
    return held.getvalue()


# Bytes of a zip that are held in memory; the rest goes to a temporary file.
HELD = 8_000_000
LONGEST_LABEL = 80
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
    short = printable(" ".join(plain.split()))[:LONGEST_LABEL].strip(". ")
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
        return PhotoFile(photo.name, photo.size, photo.changed).read()
    except OSError:
        raise gone() from None

"""Files of photos that clients add, remove or download.

Added files are stored in a folder inside the library. The server records their names in that folder, so that it only
ever deletes files that it wrote itself. Clients get photos as JPEGs of limited size, and marked answers as a zip.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO

from fastapi import HTTPException
from PIL import Image

from dolglab.data.addresses import NotAllowedError
from dolglab.data.photos import digest_of, local_file
from dolglab.data.sources import IMAGE_SUFFIXES
from dolglab.errors import UserError
from dolglab.io import write_bytes, write_text
from dolglab.library.contents import Descriptors, Photo
from dolglab.library.library import Library
from dolglab.library.naming import printable
from dolglab.library.schema import check_names, parse_json
from dolglab.server.schemas import short_name

FOLDER = "added-photos"
OWNED = ".added.json"
# Maximum bytes of a name; file systems allow 255.
MAX_NAME = 150
UNSAFE = '/\\:*?"<>|'
# Bytes of a zip that are kept in memory before it is moved to a temporary file, and bytes sent at a time.
SPOOL, CHUNK = 8_000_000, 1 << 16
MAX_FOLDER_NAME = 80
# Columns of the table of marks. `file_in_zip` is empty for photos that are left out.
COLUMNS = ("file_in_zip", "photo", "photo_number", "mark")


def find_photo(library: Library, number: int) -> Photo:
    """The photo with an id. Raises HTTPException 404 if there is none."""
    for photo, _ in library.catalogue.find([number]):
        return photo
    raise HTTPException(404, f"the library has no photo {number}")


def add_photo(library: Library, data: bytes, described: Photo, descriptor: Descriptors, local: bytes | None) -> Photo:
    """Store a photo's file, its descriptor, (1, dim), and packed local features. The caller holds the library's lock.

    The file gets the name of `described`, with a number appended if that name is taken.

    If the process is killed in between, it leaves a file that is not in the library; `dolglab embed` of its folder adds
    it. Raises HTTPException 507 if the file cannot be written.
    """
    folder = library.folder.resolve() / FOLDER
    candidates = map(folder.joinpath, numbered_names(described.name))
    path = next(path for path in candidates if not path.is_symlink() and not path.exists())
    try:
        _write_owned(path, data)
        file = local_file(path)
        photo = replace(
            described, name=file.name, size=file.size, changed=file.changed, ctime=file.ctime, digest=digest_of(data)
        )
        _insert(library, photo, descriptor, local)
    except OSError as error:
        raise HTTPException(507, f"the photo cannot be stored: {error.strerror}") from None
    stored = library.catalogue.named(str(path))
    assert stored is not None
    return stored[0]


def remove_photo(library: Library, number: int) -> bool:
    """Remove a photo from the library; returns whether its file was deleted too, as only files the server wrote are.

    Raises HTTPException 404 if there is no such photo.
    """
    photo = find_photo(library, number)
    library.remove([photo.name])
    path = Path(photo.name)
    folder = library.folder.resolve() / FOLDER
    if path.parent != folder or path.name not in _owned_names(folder):
        return False
    _delete_owned(path)
    return True


def safe_name(name: str, suffix: str) -> str:
    """A safe file name from a client's: no folders, not hidden, not empty, not too long, with an image's suffix.

    `suffix` is appended if the name has no such suffix.

    >>> safe_name("../../old town.php", ".jpg")
    'old town.php.jpg'
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    plain = "".join(c if c.isprintable() and c not in UNSAFE else " " for c in last)
    stem, dot, end = " ".join(plain.split()).rpartition(".")
    if (found := dot + end).lower() not in IMAGE_SUFFIXES:
        stem, found = stem + dot + end, suffix
    short = stem.encode(errors="ignore")[:MAX_NAME].decode(errors="ignore").strip(". ")
    return f"{short or 'photo'}{found}"


def numbered_names(name: str) -> Iterator[str]:
    """A safe name, then `stem (2).suffix` and so on, as candidates for a free name."""
    stem, suffix = Path(name).stem, Path(name).suffix
    return itertools.chain([name], (f"{stem} ({number}){suffix}" for number in itertools.count(2)))


def _insert(library: Library, photo: Photo, descriptor: Descriptors, local: bytes | None) -> None:
    try:
        library.add([photo], descriptor, [local])
    except Exception as error:
        if library.catalogue.named(photo.name) is None:
            _delete_owned(Path(photo.name))
            raise
        # The photo was added; only the clean-up afterwards failed, and the next change repeats it.
        logging.getLogger("dolg.server").error("tidying the library: %s", error)


def _write_owned(path: Path, data: bytes) -> None:
    write_bytes(path, data)
    try:
        _note_owned(path, True)
    except OSError:
        path.unlink()
        raise


def _delete_owned(path: Path) -> None:
    # The record goes first: a file that someone else puts there later is not the server's.
    _note_owned(path, False)
    path.unlink(missing_ok=True)


def _owned_names(folder: Path) -> set[str]:
    try:
        return set(check_names(parse_json((folder / OWNED).read_text())))
    except (FileNotFoundError, ValueError):
        return set()


def _note_owned(path: Path, owned: bool) -> None:
    names = _owned_names(path.parent) - {path.name} | ({path.name} if owned else set())
    write_text(path.parent / OWNED, json.dumps(sorted(names)))


def check_unchanged(photo: Photo) -> None:
    """Raise HTTPException 410 if a photo's local file is missing or has changed since it was embedded.

    Otherwise anyone able to replace it by a link could make the server show any file that it can read. Photos in object
    stores are not checked.
    """
    if "://" in photo.name:
        return
    try:
        stat = Path(photo.name).stat()
    except OSError:
        raise file_gone() from None
    if (stat.st_size, stat.st_mtime_ns) != (photo.size, photo.changed):
        raise HTTPException(410, "this photo has changed since it was embedded: embed its folder again")


def read_photo(photo: Photo) -> bytes:
    """The bytes of a photo's file. Raises HTTPException as `check_unchanged`, and 403 for an address not allowed."""
    check_unchanged(photo)
    try:
        return photo.read()
    except NotAllowedError:
        raise not_allowed() from None
    except OSError:
        raise file_gone() from None


def not_allowed() -> HTTPException:
    """The error for a photo at an address that the server may not open."""
    return HTTPException(403, "this server may not open the address of this photo: see serve --allow")


def file_gone() -> HTTPException:
    """The error for a photo whose file cannot be read."""
    return HTTPException(410, "this photo's file is missing or cannot be read")


def photo_jpeg(photo: Photo, max_side: int) -> bytes:
    """A photo as a JPEG whose longer side is at most `max_side` pixels, without EXIF data.

    Raises HTTPException 403 for an address that is not allowed, and 410 if the file cannot be read.
    """
    try:
        pixels = photo.pixels(max_side)
    except NotAllowedError:
        raise not_allowed() from None
    except UserError:
        raise file_gone() from None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def training_zip(
    name: str, query: tuple[str, bytes] | None, right: Sequence[Photo], wrong: Sequence[Photo]
) -> IO[bytes]:
    """A zip for training with `data=folder`: a folder `name` with the photos marked right and, if given, the query.

    `name.csv` beside the folder lists all marks, with `COLUMNS`. Files of photos marked wrong are left out, because
    they show various other things. `query` is a file name and its bytes.

    Raises HTTPException 410 for a photo whose file is missing, 403 for an address that is not allowed, and 400 as
    `folder_name` does.
    """
    folder, taken = folder_name(name), set[str]()
    rows: list[tuple[str, str, str, str]] = [COLUMNS]
    with ExitStack() as stack:
        spool = stack.enter_context(tempfile.SpooledTemporaryFile(SPOOL))
        with zipfile.ZipFile(spool, "w", zipfile.ZIP_STORED) as archive:
            if query is not None:
                rows.append((_write(archive, folder, taken, *query), query[0], "", "query"))
            for photo in right:
                file = _write(archive, folder, taken, safe_name(photo.name, ".jpg"), read_photo(photo))
                rows.append((file, short_name(photo.name), str(photo.id), "right"))
            rows += [("", short_name(photo.name), str(photo.id), "wrong") for photo in wrong]
            table = io.StringIO(newline="")
            csv.writer(table).writerows(rows)
            archive.writestr(f"{folder}.csv", table.getvalue())
        spool.seek(0)
        # The caller closes the zip.
        stack.pop_all()
    return spool


def iterate_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """The contents of a file in chunks; closes it at the end."""
    with file:
        yield from iter(lambda: file.read(CHUNK), b"")


def folder_name(name: str) -> str:
    """A folder's name from a user's name of a landmark. Raises HTTPException 400 if no valid characters are left.

    >>> folder_name("old/town.")
    'old_town'
    """
    plain = "".join("_" if c in UNSAFE or not c.isprintable() else c for c in name)
    short = printable(" ".join(plain.split()))[:MAX_FOLDER_NAME].strip(". ")
    if not short:
        raise HTTPException(400, "enter what the photos show: it becomes the name of the folder")
    return short


def _write(archive: zipfile.ZipFile, folder: str, taken: set[str], name: str, data: bytes) -> str:
    """Write a file under a name that is free, ignoring case; returns its path."""
    free = next(candidate for candidate in numbered_names(name) if candidate.lower() not in taken)
    taken.add(free.lower())
    archive.writestr(f"{folder}/{free}", data)
    return f"{folder}/{free}"

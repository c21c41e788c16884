"""Files of photos: those that the server takes into a library, and out of it, and what clients download.

What is taken in lies in a folder of the library's own. The names of the files that the server wrote are noted beside
them, so that it never deletes anybody else's. Photos are downloaded as JPEGs of a bounded size, and marked answers as a
zip to train on.
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
from pathlib import Path
from typing import IO

from fastapi import HTTPException
from PIL import Image

from dolglab.data.addresses import NotAllowedError
from dolglab.data.photos import digest_of, local_file
from dolglab.data.sources import IMAGE_SUFFIXES
from dolglab.errors import UserError
from dolglab.io import write_bytes, write_text
from dolglab.library.contents import Columns, Descriptors, Photo
from dolglab.library.library import Library
from dolglab.library.naming import printable
from dolglab.library.schema import check_names, parse_json
from dolglab.server.schemas import short_name

FOLDER = "added-photos"
OWNED = ".added.json"
# Bytes of a name; file systems take 255.
MAX_NAME = 150
UNSAFE = '/\\:*?"<>|'
# Bytes of a zip that are held in memory (the rest goes to a temporary file), and that are sent at a time.
SPOOL, CHUNK = 8_000_000, 1 << 16
MAX_FOLDER_NAME = 80
# Of the table of marks: the name in the zip, empty where the photo is left out; name and number in the library.
COLUMNS = ("file_in_zip", "photo", "photo_number", "mark")


def find_photo(library: Library, number: int) -> Photo:
    """The photo of that number. Raises HTTPException 404 where there is none."""
    for photo, _ in library.catalogue.find([number]):
        return photo
    raise HTTPException(404, f"the library has no photo {number}")


def add_photo(
    library: Library,
    data: bytes,
    name: str,
    shape: tuple[int, int],
    descriptor: Descriptors,
    local: bytes | None,
    metadata: Columns,
) -> Photo:
    """Store a photo's file, its descriptor, (1, dim), and packed local features. The caller holds the library's lock.

    A process that is killed between the two leaves a file that no search finds; `dolglab embed` of that folder takes
    it in. Raises HTTPException 507 where the disk does not take the photo.
    """
    folder = library.folder.resolve() / FOLDER
    candidates = map(folder.joinpath, numbered_names(name))
    path = next(path for path in candidates if not path.is_symlink() and not path.exists())
    try:
        _write_owned(path, data)
        file = local_file(path)
        photo = Photo(file.name, file.size, file.changed, shape, None, metadata, file.ctime, digest_of(data))
        _insert(library, photo, descriptor, local)
    except OSError as error:
        raise HTTPException(507, f"the photo cannot be kept: {error.strerror}") from None
    stored = library.catalogue.named(str(path))
    assert stored is not None
    return stored[0]


def remove_photo(library: Library, number: int) -> bool:
    """Take a photo out of the library; returns whether its file was deleted too, as only one of the server's is.

    Raises HTTPException 404 where the library has no such photo.
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
    """A file name made of a client's: without folders, not hidden, not empty, not long, and with an image's suffix.

    A name without one gets the given `suffix`.

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
    """A safe name, then `stem (2).suffix` and so on, for whoever looks for one that is free."""
    stem, suffix = Path(name).stem, Path(name).suffix
    return itertools.chain([name], (f"{stem} ({number}){suffix}" for number in itertools.count(2)))


def _insert(library: Library, photo: Photo, descriptor: Descriptors, local: bytes | None) -> None:
    try:
        library.add([photo], descriptor, [local])
    except Exception as error:
        if library.catalogue.named(photo.name) is None:
            _delete_owned(Path(photo.name))
            raise
        # The photo is in; only the tidying after it failed, which the next change tries again.
        logging.getLogger("dolg.server").error("tidying the library: %s", error)


def _write_owned(path: Path, data: bytes) -> None:
    write_bytes(path, data)
    try:
        _note_owned(path, True)
    except OSError:
        path.unlink()
        raise


def _delete_owned(path: Path) -> None:
    # The note goes first: what somebody else puts there later is not the server's.
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
    """The error for a photo at an address that only the library names."""
    return HTTPException(403, "this server does not open the address of this photo: serve --allow")


def file_gone() -> HTTPException:
    """The error for a photo whose file cannot be read any more."""
    return HTTPException(410, "this photo's file is gone, or cannot be read any more")


def photo_jpeg(photo: Photo, max_side: int) -> bytes:
    """A photo's file as a JPEG of at most `max_side` pixels a side, without what the file says of place and camera.

    Raises HTTPException 403 for an address that is not allowed, and 410 where it cannot be read.
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
    """A zip that `data=folder` trains on: a folder `name` with the photos marked right and, where given, the query.

    `name.csv` beside the folder, with `COLUMNS`, lists every mark, those of wrong photos too, whose files are left out:
    they show something else, and not all the same. Of the query its file's name and bytes are given.

    Raises HTTPException 410 for a photo whose file is gone, 403 for an address that is not allowed, and 400 as
    `folder_name`.
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

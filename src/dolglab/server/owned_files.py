"""Photos that the server takes into a library, and takes out: their files lie in a folder of the library's own.

The names of the files that the server wrote are noted beside them, so that it never deletes anybody else's.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray

from dolglab.io import write_bytes, write_text
from dolglab.library.catalogue import Photo
from dolglab.library.library import Library
from dolglab.library.photos import IMAGE_SUFFIXES
from dolglab.server.errors import LOG

FOLDER = "added-photos"
OWNED = ".added.json"
# Bytes of a name; file systems take 255.
MAX_NAME = 150
UNSAFE = '/\\:*?"<>|'


def find_photo(library: Library, number: int) -> Photo:
    """The photo of that number. Raises HTTPException 404 where there is none."""
    photo = library.catalogue.find(number)
    if photo is None:
        raise HTTPException(404, f"the library has no photo {number}")
    return photo


def add_photo(
    library: Library,
    data: bytes,
    name: str,
    shape: tuple[int, int],
    descriptor: NDArray[np.float32],
    metadata: Mapping[str, str],
) -> Photo:
    """Store a photo's file and its descriptor, (1, dim). The caller holds the library's lock.

    A process that is killed between the two leaves a file that no search finds; `dolglab embed` of that folder takes
    it in. Raises HTTPException 403 where the folder is a link, and 507 where the disk does not take the photo.
    """
    folder = library.folder.resolve() / FOLDER
    if folder.is_symlink():
        raise HTTPException(403, f"the library's folder {FOLDER} is a link that leads elsewhere: nothing is added")
    candidates = map(folder.joinpath, numbered_names(name))
    path = next(path for path in candidates if not path.is_symlink() and not path.exists())
    try:
        _write_owned(path, data)
        stat = path.stat()
        _insert(library, Photo(str(path), stat.st_size, stat.st_mtime_ns, shape, metadata=metadata), descriptor)
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
    if path.parent != folder or folder.is_symlink() or path.name not in _owned_names(folder):
        return False
    _delete_owned(path)
    return True


def safe_name(name: str, suffix: str) -> str:
    """A file name made of a client's: without folders, not hidden, not empty, not long, and with an image's suffix.

    Args:
        suffix: for a name without one.

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


def _insert(library: Library, photo: Photo, descriptor: NDArray[np.float32]) -> None:
    try:
        library.add([photo], descriptor)
    except Exception as error:
        if library.catalogue.named(photo.name) is None:
            _delete_owned(Path(photo.name))
            raise
        # The photo is in; only the tidying after it failed, which the next change tries again.
        LOG.error("tidying the library: %s", error)


def _write_owned(path: Path, data: bytes) -> None:
    write_bytes(path, data)
    try:
        _note_owned(path.parent, _owned_names(path.parent) | {path.name})
    except OSError:
        path.unlink()
        raise


def _delete_owned(path: Path) -> None:
    # The note goes first: what somebody else puts there later is not the server's.
    _note_owned(path.parent, _owned_names(path.parent) - {path.name})
    path.unlink(missing_ok=True)


def _owned_names(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / OWNED).read_text()))
    except (FileNotFoundError, ValueError):
        return set()


def _note_owned(folder: Path, names: set[str]) -> None:
    write_text(folder / OWNED, json.dumps(sorted(names)))

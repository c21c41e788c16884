"""Photos that came over the network: kept in a folder of the library's own, and taken out of it again."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray

from src.library.contents import Photo
from src.library.library import Library
from src.library.photos import IMAGE_SUFFIXES
from src.server.kept import discard, is_kept, keep

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

    A process that is killed between the two leaves a file that no search finds; `src.embed` of that folder takes it in.
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

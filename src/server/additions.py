"""Photos that came over the network: kept in the library's own folder `photos`, and taken out of it again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray

from src.files import write_bytes
from src.library.contents import Photo
from src.library.library import Library
from src.server.limits import FORMATS

FOLDER = "photos"
# Bytes of a name; file systems take 255.
LONGEST = 150
UNSAFE = '/\\:*?"<>|'
SUFFIXES = {*FORMATS.values(), ".jpeg", ".tiff"}


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
        write_bytes(path, data)
        try:
            about = path.stat()
            library.add([Photo(str(path), about.st_size, about.st_mtime_ns, shape, metadata=metadata)], descriptor)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise HTTPException(507, f"the photo cannot be kept: {error.strerror}") from None
    kept = library.catalogue.named(str(path))
    assert kept is not None
    return kept[0]


def remove_photo(library: Library, photo: Photo) -> bool:
    """Take a photo out; whether its file went too, as only a file of the library's own does."""
    library.remove([photo.name])
    path = Path(photo.name)
    if path.parent != library.folder.resolve() / FOLDER or path.parent.is_symlink():
        return False
    path.unlink(missing_ok=True)
    return True


def safe_name(name: str, suffix: str) -> str:
    """A file name made of what somebody calls a photo: no folder, not hidden, an image's suffix, not empty, not long.

    Args:
        suffix: of files of its format, for a name without one.
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    plain = "".join(c if c.isprintable() and c not in UNSAFE else " " for c in last)
    stem, dot, end = " ".join(plain.split()).rpartition(".")
    if (found := dot + end).lower() not in SUFFIXES:
        stem, found = stem + dot + end, suffix
    short = stem.encode(errors="ignore")[:LONGEST].decode(errors="ignore").strip(". ")
    return f"{short or 'photo'}{found}"


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

"""Libraries that several machines made, joined into one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.contracts import InputError
from src.errors import counted
from src.library.catalogue import FILE
from src.library.changes import Change
from src.library.contents import Photo
from src.library.library import IDENTITY, Library

Entry = tuple[Photo, int | None]


def merge(folders: Sequence[str], into: str) -> None:
    """Put the photos of libraries, which stay as they are, into another one, made where there is none.

    Each one comes whole or not at all. Of a photo that is in several, the one that was changed last is taken, and the
    columns of all. Prints how many each one gave. Raises InputError for libraries of different models.
    """
    if any(Path(folder).resolve() == Path(into).resolve() for folder in folders):
        raise InputError(f"{into} cannot be merged into itself")
    sources = [Library(folder) for folder in folders]
    _check_alike([*sources, *([Library(into)] if (Path(into) / FILE).exists() else [])])
    library = Library.open(into, sources[0].identity)
    with library.writing():
        for source in sources:
            with library.change() as change:
                taken = sum(_take(library, source, page, change) for page in source.catalogue.pages())
            print(f"{source.folder}: {counted(taken, 'photo')} taken")
    print(f"{counted(len(library), 'photo')} in {into}")


def _check_alike(libraries: Sequence[Library]) -> None:
    first = libraries[0]
    for other in libraries[1:]:
        for key in IDENTITY:
            mine, theirs = first.identity[key], other.identity[key]
            if mine != theirs:
                raise InputError(
                    f"{other.folder} was made by {other.identity['title']} ({key} {theirs}), {first.folder} by "
                    f"{first.identity['title']} ({key} {mine}): libraries of one model, scales and size are merged"
                )


def _take(library: Library, source: Library, page: Sequence[Entry], change: Change) -> int:
    """Take in some photos of a source; how many were new, or newer than the library's."""
    # What is damaged and waits to be described anew says nothing.
    entries = [entry for entry in page if entry[1] is not None or entry[0].reason is not None]
    there = [library.catalogue.named(photo.name) for photo, _ in entries]
    newer = [old is None or _rank(entry) > _rank(old) for entry, old in zip(entries, there, strict=True)]
    _put(library, source, [entry for entry, new in zip(entries, newer, strict=True) if new], change)
    for (photo, _), old, new in zip(entries, there, newer, strict=True):
        if old is not None:
            first, last = (old[0], photo) if new else (photo, old[0])
            change.describe(photo.name, {**first.metadata, **last.metadata})
    return sum(newer)


def _put(library: Library, source: Library, entries: Sequence[Entry], change: Change) -> None:
    keys = np.array([key for _, key in entries if key is not None], np.int64)
    own = iter(library.keep(change, source.descriptors(keys)).tolist() if len(keys) else ())
    change.put([photo for photo, _ in entries], [None if key is None else next(own) for _, key in entries])


def _rank(entry: Entry) -> tuple[int, bool]:
    """Higher of what was changed later; of one state of a file, of what could be described."""
    photo, key = entry
    return photo.changed, key is not None

"""Photos taken out of a library; their files stay as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.contracts import InputError
from src.errors import counted, some
from src.library.answers import printable
from src.library.library import Library


def remove(library: Library, given: Sequence[str], gone: bool = False) -> None:
    """Take out photos by their paths or addresses, and with `gone` those whose local files are no longer there.

    Prints how many. Raises InputError, and takes out none, where one that was named is not in the library, and where
    every file is gone.
    """
    if not given and not gone:
        raise InputError("which photos? name them, or give --gone for those whose files are no longer there")
    with library.writing():
        names = {*_named(library, given), *(_gone(library) if gone else ())}
        count = library.remove(names)
    print(f"{counted(count, 'photo')} removed: {len(library)} in {library.folder}")


def _named(library: Library, given: Sequence[str]) -> list[str]:
    known = library.catalogue.named
    found = {word: next((name for name in _spellings(word) if known(name)), None) for word in given}
    if strangers := [printable(word) for word, name in found.items() if name is None]:
        raise InputError(f"{some(strangers)}: not in {library.folder}, so nothing was removed")
    return [name for name in found.values() if name is not None]


def _spellings(word: str) -> Iterator[str]:
    """How a library may call it: as it stands, or by an absolute path, whose folders may be links."""
    path = Path(word).absolute()
    yield from (word, str(path), os.path.normpath(path), str(path.parent.resolve() / path.name), str(path.resolve()))


def _gone(library: Library) -> list[str]:
    names = (photo.name for page in library.catalogue.pages() for photo, _ in page)
    gone, there = [], 0
    for name in (name for name in names if "://" not in name):
        if _there(name):
            there += 1
        else:
            gone.append(name)
    if gone and not there:
        raise InputError(f"the files of all {len(gone)} photos are gone: is their disk there? Nothing was removed")
    return gone


def _there(name: str) -> bool:
    """What cannot be looked at, as on a disk that does not answer, counts as there."""
    try:
        os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True

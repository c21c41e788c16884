"""Looking after a library: what it says about itself, tables of it, photos taken out, libraries merged."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dolglab.errors import UserError, pluralize, truncate_list
from dolglab.io import atomic_path
from dolglab.library.catalogue import FILE, Change, Entry, printable
from dolglab.library.library import Library


def print_info(library: Library, bad: bool = False) -> None:
    """Print how many photos, the model, the columns, bytes on disk; with `bad` also what could not be read, and why."""
    broken = list(library.catalogue.bad())
    identity = library.identity
    scales = ", ".join(f"{scale:g}" for scale in identity["scales"])
    size = sum(path.stat().st_size for path in library.folder.rglob("*") if path.is_file())
    print(f"photos: {len(library)}")
    print(f"could not be read: {len(broken)}" + ("" if bad or not broken else " (--bad names them)"))
    print(f"model: {printable(identity['title'])}, {identity['dim']} values a photo")
    print(f"scales: {scales}; photos of at most {identity['max_side']} pixels")
    print(f"columns: {', '.join(map(printable, library.catalogue.columns())) or 'none'}")
    print(f"on disk: {size / 1e6:.1f} MB")
    for photo in broken if bad else ():
        print(f"{printable(photo.name)}: {photo.reason}")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV row after row, in one step; folders are made as needed.

    Names keep the very bytes that they have on disk. Raises UserError for a file that cannot be written.
    """
    try:
        with (
            atomic_path(path) as aside,
            aside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            csv.writer(file).writerows(itertools.chain([header], rows))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def remove(library: Library, given: Sequence[str], gone: bool = False) -> None:
    """Take out photos by their paths or addresses, and with `gone` those whose local files are no longer there.

    Prints how many. Raises UserError, and takes out none, where one that was named is not in the library, and where
    every file is gone.
    """
    if not given and not gone:
        raise UserError("which photos? name them, or give --gone for those whose files are no longer there")
    with library.writing():
        found = {word: next(filter(library.catalogue.named, _spellings(word)), None) for word in given}
        if strangers := [printable(word) for word, name in found.items() if name is None]:
            raise UserError(f"{truncate_list(strangers)}: not in {library.folder}, so nothing was removed")
        names = {name for name in found.values() if name is not None}
        count = library.remove(names.union(_gone_files(library) if gone else ()))
    print(f"{pluralize(count, 'photo')} removed: {len(library)} in {library.folder}")


def _spellings(word: str) -> Iterator[str]:
    """How a library may call it: as it stands, or by an absolute path, whose folders may be links."""
    path = Path(word).absolute()
    yield from (word, str(path), os.path.normpath(path), str(path.parent.resolve() / path.name), str(path.resolve()))


def _gone_files(library: Library) -> list[str]:
    """What cannot be looked at, as on a disk that does not answer, counts as there."""
    names = (photo.name for page in library.catalogue.pages() for photo, _ in page)
    gone, any_there = list[str](), False
    for name in (name for name in names if "://" not in name):
        try:
            os.stat(name)
            any_there = True
        except (FileNotFoundError, NotADirectoryError):
            gone.append(name)
        except OSError:
            any_there = True
    if gone and not any_there:
        raise UserError(f"the files of all {len(gone)} photos are gone: is their disk there? Nothing was removed")
    return gone


def merge(folders: Sequence[str], into: str) -> None:
    """Put the photos of libraries, which stay as they are, into another one, made where there is none.

    Each one comes whole or not at all. Of a photo that is in several, the one that was changed last is taken, and the
    columns of all. Prints how many each one gave. Raises UserError for libraries of different models.
    """
    if any(Path(folder).resolve() == Path(into).resolve() for folder in folders):
        raise UserError(f"{into} cannot be merged into itself")
    sources = [Library(folder) for folder in folders]
    first = sources[0]
    for other in [*sources[1:], *([Library(into)] if (Path(into) / FILE).exists() else [])]:
        if key := first.differs_in(other.identity):
            makers = [f"{one.identity['title']} ({key} {one.identity[key]})" for one in (other, first)]
            raise UserError(
                f"{other.folder} was made by {makers[0]}, {first.folder} by {makers[1]}: libraries of one model, "
                "scales and size are merged"
            )
    library = Library.open(into, first.identity)
    with library.writing():
        for source in sources:
            with library.change() as change:
                taken = sum(_merge_page(library, source, page, change) for page in source.catalogue.pages())
            print(f"{source.folder}: {pluralize(taken, 'photo')} taken")
    print(f"{pluralize(len(library), 'photo')} in {into}")


def _merge_page(library: Library, source: Library, page: Sequence[Entry], change: Change) -> int:
    """Take in some photos of a source; how many were new, or newer than the library's."""
    # What is damaged and waits to be described anew says nothing.
    entries = [entry for entry in page if entry[1] is not None or entry[0].reason is not None]
    there = [library.catalogue.named(photo.name) for photo, _ in entries]
    newer = [old is None or _rank(entry) > _rank(old) for entry, old in zip(entries, there, strict=True)]
    taken = [entry for entry, new in zip(entries, newer, strict=True) if new]
    keys = np.array([key for _, key in taken if key is not None], np.int64)
    new_keys = iter(library.write_segment(change, source.descriptors(keys)).tolist() if len(keys) else ())
    change.put([photo for photo, _ in taken], [None if key is None else next(new_keys) for _, key in taken])
    for (photo, _), old, new in zip(entries, there, newer, strict=True):
        if old is not None:
            first, last = (old[0], photo) if new else (photo, old[0])
            change.set_metadata(photo.name, {**first.metadata, **last.metadata})
    return sum(newer)


def _rank(entry: Entry) -> tuple[int, bool]:
    """Higher of what was changed later; of one state of a file, of what could be described."""
    photo, key = entry
    return photo.changed, key is not None

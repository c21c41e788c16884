"""Maintenance of a library: print its properties, write tables, remove photos, merge libraries."""

from __future__ import annotations

import csv
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from dolglab.errors import UserError, pluralize, truncate_list
from dolglab.io import atomic_path
from dolglab.library.catalogue import FILE
from dolglab.library.change import Change
from dolglab.library.contents import Entry
from dolglab.library.library import ADAPTER, Library
from dolglab.library.naming import last_part, matching, printable, spellings
from dolglab.retrieval.adapter import write_adapter


def print_info(library: Library, bad: bool = False) -> None:
    """Print number of photos, model, columns and size on disk; with `bad` also unreadable photos with reasons."""
    broken = list(library.catalogue.bad())
    identity = library.identity
    scales = ", ".join(f"{scale:g}" for scale in identity["scales"])
    size = sum(path.stat().st_size for path in library.folder.rglob("*") if path.is_file())
    print(f"photos: {len(library)}")
    print(f"could not be read: {len(broken)}" + ("" if bad or not broken else " (--bad names them)"))
    print(f"model: {printable(identity['title'])}, {identity['dim']} values per photo")
    how = f"colour {identity['colour']}; decoding {identity['decoding']}"
    print(f"scales: {scales}; photos of at most {identity['max_side']} pixels; {how}")
    if (adapter := library.adapter()) is not None:
        print(f"adapted: {printable(adapter.summary())}")
    print(f"columns: {', '.join(map(printable, library.catalogue.columns())) or 'none'}")
    if (local := library.catalogue.local()) is not None:
        count, kept = library.catalogue.kept_size()
        features = printable(local["features"])
        print(f"local features: {features}, of {pluralize(count, 'photo')}, {kept // max(1, count):,} bytes per photo")
    print(f"on disk: {size / 1e6:.1f} MB")
    for photo in broken if bad else ():
        print(f"{printable(photo.name)}: {photo.reason}")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV row by row, atomically; folders are created as needed.

    Names keep the bytes that they have on disk. Raises UserError if the file cannot be written.
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
    """Remove photos, and with `gone` those whose local files no longer exist although their disk is mounted.

    Photos and folders are given by paths, addresses, or ends of these (see `matching`). Prints how many were removed.
    Raises UserError, and removes nothing, if a given one is not in the library or is ambiguous, and if all files are
    missing.
    """
    if not given and not gone:
        raise UserError("which photos? name them, or use --gone for those whose files no longer exist")
    with library.writing():
        names = _photos_called(library, given)
        missing, kept = _gone_files(library) if gone else ([], [])
        count = library.remove(names.union(missing))
    if kept := [name for name in kept if name not in names]:
        print(
            f"not removed: {pluralize(len(kept), 'photo')} on a disk that seems not to be mounted, such as "
            f"{printable(kept[0])}: mount it, or name the folder to remove them"
        )
    print(f"{pluralize(count, 'photo')} removed: {len(library)} in {library.folder}")


def _photos_called(library: Library, given: Sequence[str]) -> set[str]:
    """The names of the given photos, and of those below given folders.

    Raises UserError for one that is not in the library or is ambiguous.
    """
    photos = {word: next(filter(library.catalogue.named, paths_of(word)), None) for word in given}
    found = {name for name in photos.values() if name is not None}
    words = [word for word, name in photos.items() if name is None]
    if not words:
        return found
    folders = _folders_of(library.catalogue.names())
    ends = {word: {last_part(each) for each in spellings(word)} for word in words}
    alike: dict[str, list[str]] = {end: [] for end in set[str]().union(*ends.values())}
    for path in itertools.chain(library.catalogue.names(), folders):
        if (end := last_part(path)) in alike:
            alike[end].append(path)
    strangers, below = list[str](), list[str]()
    for word in words:
        # An empty word, for example from an unset shell variable, must not mean a folder.
        paths = {path.rstrip("/") for path in paths_of(word)} & folders if word else set[str]()
        if not paths:
            paths = set(matching(word, (path for end in ends[word] for path in alike[end])))
            if len(paths) > 1:
                found_several = f"{printable(word)} matches {len(paths)} photos or folders"
                such = printable(min(paths))
                raise UserError(f"{found_several}, such as {such}: give more of the path; nothing was removed")
        strangers += [] if paths else [printable(word)]
        found |= paths - folders
        below += [f"{path}/" for path in paths & folders]
    if strangers:
        raise UserError(f"{truncate_list(strangers)}: not in {library.folder}; nothing was removed")
    starts = tuple(below)
    return found.union(name for name in library.catalogue.names() if name.startswith(starts)) if starts else found


def _folders_of(names: Iterable[str]) -> set[str]:
    """All folders above photos."""
    folders = set[str]()
    for name in names:
        while "/" in name and (name := name.rpartition("/")[0]) not in folders:
            folders.add(name)
    return folders


def paths_of(word: str) -> Iterator[str]:
    """The names that a library may have for a word: itself, or absolute paths with links resolved or not."""
    path = Path(word).absolute()
    yield from (word, str(path), os.path.normpath(path), str(path.parent.resolve() / path.name), str(path.resolve()))


def _gone_files(library: Library) -> tuple[list[str], list[str]]:
    """Photos whose files no longer exist, and those whose disk seems not to be mounted.

    Files that cannot be checked, for example because a disk does not respond, count as existing. A disk counts as not
    mounted if none of its photos exists and its mount point is missing or empty.
    """
    mounts = sorted(library.catalogue.mounts(), key=len, reverse=True)
    missing, there = defaultdict[str | None, list[str]](list), set[str | None]()
    for name in (name for name in library.catalogue.names() if "://" not in name):
        mount = next((mount for mount in mounts if name.startswith(f"{mount}/")), None)
        try:
            os.stat(name)
            there.add(mount)
        except (FileNotFoundError, NotADirectoryError):
            missing[mount].append(name)
        except OSError:
            there.add(mount)
    if missing and not there:
        count = sum(map(len, missing.values()))
        raise UserError(f"the files of all {count} photos are missing: is their disk mounted? Nothing was removed")
    gone, kept = list[str](), list[str]()
    empty = cache(_is_empty)
    for mount, names in missing.items():
        unmounted = mount is not None and mount not in there and not os.path.ismount(mount)
        for name in names:
            (kept if unmounted or empty(os.path.dirname(name)) else gone).append(name)
    return gone, kept


def _is_empty(folder: str) -> bool:
    """Whether a folder, or its first existing parent, is empty or unreadable."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        with os.scandir(folder) as entries:
            return not any(entries)
    except OSError:
        return True


def merge(folders: Sequence[str], into: str) -> None:
    """Copy the photos of libraries into another one, which is created if needed.

    Each library is copied as a whole or not at all. Of a photo in several libraries, the one that was modified last is
    copied, with the columns of all. Local features are copied if they are of the first kind that any library keeps.
    Prints how many photos were copied from each. Raises UserError for libraries of different models.
    """
    if any(Path(folder).resolve() == Path(into).resolve() for folder in folders):
        raise UserError(f"{into} cannot be merged into itself")
    sources = [Library(folder) for folder in folders]
    first = sources[0]
    for other in [*sources[1:], *([Library(into)] if (Path(into) / FILE).exists() else [])]:
        if key := first.differs_in(other.identity):
            makers = [f"{one.identity['title']} ({key} {one.identity.get(key)})" for one in (other, first)]
            raise UserError(
                f"{other.folder} was made by {makers[0]}, {first.folder} by {makers[1]}: only libraries of the same "
                "model, scales and size can be merged"
            )
    if (adapter := first.adapter()) is not None:
        write_adapter(Path(into) / ADAPTER, adapter)
    library = Library.open(into, first.identity)
    kinds = (each.catalogue.local() for each in (library, *sources))
    kind = next((kind for kind in kinds if kind is not None), None)
    with library.writing():
        for source in sources:
            with library.change() as change:
                if kind is not None:
                    change.keep_local(kind)
                taken = sum(_merge_page(library, source, page, change) for page in source.catalogue.pages())
                change.add_mounts(source.catalogue.mounts())
            print(f"{source.folder}: {pluralize(taken, 'photo')} copied")
    print(f"{pluralize(len(library), 'photo')} in {into}")


def _merge_page(library: Library, source: Library, page: Sequence[Entry], change: Change) -> int:
    """Copy some photos of a source; returns how many were new, or newer than the library's."""
    # Photos with damaged descriptors, which wait to be described again, are skipped.
    entries = [entry for entry in page if entry[1] is not None or entry[0].reason is not None]
    there = [library.catalogue.named(photo.name) for photo, _ in entries]
    newer = [old is None or _rank(entry) > _rank(old) for entry, old in zip(entries, there, strict=True)]
    taken = [entry for entry, new in zip(entries, newer, strict=True) if new]
    keys = np.array([key for _, key in taken if key is not None], np.int64)
    new_keys = iter(library.write_segment(change, source.descriptors(keys)).tolist() if len(keys) else ())
    kept = {}
    if source.catalogue.local() == library.catalogue.local():
        kept = source.catalogue.kept(photo.id for photo, _ in taken if photo.id is not None)
    change.put(
        [photo for photo, _ in taken],
        [None if key is None else next(new_keys) for _, key in taken],
        [None if photo.id is None else kept.get(photo.id) for photo, _ in taken],
    )
    for (photo, _), old, new in zip(entries, there, newer, strict=True):
        if old is not None:
            first, last = (old[0], photo) if new else (photo, old[0])
            change.set_metadata(photo.name, first.given)
            change.add_metadata(photo.name, last.given)
    return sum(newer)


def _rank(entry: Entry) -> tuple[int, bool]:
    """The later modified photo ranks higher; of the same state of a file, the one with a descriptor."""
    photo, key = entry
    return photo.changed, key is not None

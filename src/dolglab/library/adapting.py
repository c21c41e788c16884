"""A library adapted to what its photos show, by their labels and the descriptors that it has: no photo is read."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

import dolglab
from dolglab.errors import UserError, pluralize
from dolglab.library.contents import Photo
from dolglab.library.labelling import score_column_of
from dolglab.library.library import ADAPTER, Library
from dolglab.library.maintenance import paths_of
from dolglab.library.naming import marked_encoding, printable
from dolglab.retrieval.adapter import Adapter

# Of a table of marks that the page exports: photos that show what the table's name says.
NUMBER, NAME, MARK, RIGHT = "photo_number", "photo", "mark", "right"


class Labelled(NamedTuple):
    """A photo with the key of its descriptor, and what it shows."""

    photo: Photo
    key: int
    landmark: str


def adapt(
    folder: str, *, column: str | None = None, labelled: str | None = None, marks: Sequence[str] = (), seed: int = 0
) -> None:
    """Learn an adapter from the library's labelled photos, say what it brings, and keep it where it brings anything.

    One of `column` (of the metadata), `labelled` (a folder with one sub-folder a landmark) and `marks` (tables that the
    page exported, one a landmark) says what photos show. `seed` is of the splits. Raises UserError for labels that are
    too few, an adapter that does not gain, and a library that cannot be adapted; it then is as it was.
    """
    if sum((column is not None, labelled is not None, bool(marks))) != 1:
        raise UserError("what do the photos show? give one of --column NAME, --folder FOLDER, --marks TABLE")
    start = time.process_time()
    with closing(Library(folder)) as library, library.writing():
        library.check_adaptable()
        if column is not None:
            found, origin = _by_column(library, column), f"column {column}"
        elif labelled is not None:
            found, origin = _by_folder(library, labelled), f"folder {labelled}"
        else:
            found, origin = _by_marks(library, marks), "marks"
        adapter = _learn(library, found, origin, seed)
        library.adapt(adapter)
        seconds = time.process_time() - start
        print(
            f"adapted: {pluralize(len(library), 'photo')} in {library.folder}, {adapter.dim} values a photo, "
            f"{seconds:.1f} s of processor time; {library.folder / ADAPTER} has the adapter"
        )


def _learn(library: Library, found: Sequence[Labelled], origin: str, seed: int) -> Adapter:
    """An adapter by labelled photos; prints what it brings. Raises UserError where it brings nothing."""
    from threadpoolctl import threadpool_limits

    from dolglab.library.adapter_learning import learn

    photos = _distinct(found)
    names, labels = np.unique([each.landmark for each in photos], return_inverse=True)
    print(f"labels: {pluralize(len(photos), 'photo')} of {pluralize(len(names), 'landmark')} ({printable(origin)})")
    descriptors = library.descriptors(np.array([each.key for each in photos], np.int64))
    # Of many small products: threads that wait for one another took five times the processor's time.
    with threadpool_limits(1):
        learnt = learn(descriptors, labels.astype(np.int64), seed)
    print(f"chosen by held-out labels: {learnt.kind}")
    seen, unseen = learnt.seen.figures(), learnt.unseen.figures()
    for figures, what in ((seen, "the same landmarks"), (unseen, "landmarks that it never saw")):
        print(
            f"held-out photos of {what}: mAP {100 * figures['before']:.2f} -> {100 * figures['after']:.2f} %, "
            f"{100 * figures['gain']:+.2f} points (95 % interval {100 * figures['low']:+.2f} to "
            f"{100 * figures['high']:+.2f}, {figures['queries']} queries)"
        )
    if seen["low"] <= 0:
        raise UserError("nothing is changed: held-out photos of the same landmarks may be found no better")
    if unseen["high"] < 0:
        raise UserError("nothing is changed: landmarks that it never saw are found less well; label more landmarks")
    card = {
        "version": dolglab.__version__,
        "title": library.identity["title"],
        "labels": origin,
        "photos": len(photos),
        "landmarks": len(names),
        "kind": learnt.kind,
        "seed": seed,
        "seen": seen,
        "unseen": unseen,
    }
    weight, bias = (part.astype(np.float32) for part in learnt.affine)
    return Adapter(weight, bias, library.identity["model"], card)


def _distinct(found: Sequence[Labelled]) -> list[Labelled]:
    """Labelled photos by name; of exact copies, which no split may part, the first alone."""
    distinct: dict[bytes | str, Labelled] = {}
    for each in sorted(found, key=lambda each: each.photo.name):
        distinct.setdefault(each.photo.digest or each.photo.name, each)
    return list(distinct.values())


def _by_column(library: Library, column: str) -> list[Labelled]:
    """Photos to which a person gave a value in a column. Raises UserError where there is none."""
    found = [
        Labelled(photo, key, name)
        for photo, key in _photos(library)
        if (name := photo.metadata.get(column)) and score_column_of(column) not in photo.metadata
    ]
    if not found:
        columns = ", ".join(map(printable, library.catalogue.columns())) or "none"
        raise UserError(f"no photo has {column}: the columns are {columns} (dolglab embed --metadata joins a table)")
    return found


def _by_folder(library: Library, folder: str) -> list[Labelled]:
    """Photos below the sub-folders of a folder, whose names they have. Raises UserError where there is none."""
    starts = {f"{path.rstrip('/')}/" for path in paths_of(folder)}
    found = [
        Labelled(photo, key, landmark)
        for photo, key in _photos(library)
        for start in starts
        if photo.name.startswith(start)
        for landmark, below, _ in [photo.name.removeprefix(start).partition("/")]
        if below
    ]
    if not found:
        raise UserError(f"{library.folder} has no photo in a sub-folder of {folder}: dolglab embed it first")
    return found


def _by_marks(library: Library, tables: Sequence[str]) -> list[Labelled]:
    """Photos that are marked right in tables, whose names they have.

    Raises UserError for a table that the page did not export, one of another library, and a photo that is right in two.
    """
    described = {photo.id: (photo, key) for photo, key in _photos(library)}
    found: dict[int, Labelled] = {}
    for table in tables:
        landmark = Path(table).stem
        for number, name in _right_photos(table):
            photo, key = described.get(number, (None, -1))
            if photo is None or not printable(photo.name).endswith(name):
                raise UserError(f"{table} is not of {library.folder}: photo {number} there is not {name}")
            if found.setdefault(key, Labelled(photo, key, landmark)).landmark != landmark:
                raise UserError(f"{name} is marked right in {found[key].landmark} and in {landmark}")
    return list(found.values())


def _right_photos(table: str) -> Iterator[tuple[int, str]]:
    """Numbers and names of the photos that are marked right in a table."""
    try:
        with Path(table).open("rb") as file:
            encoding = marked_encoding(file.read(4))
        with Path(table).open(newline="", encoding=encoding) as file:
            for row in csv.DictReader(file):
                if row[MARK] == RIGHT:
                    yield int(row[NUMBER]), row[NAME]
    except (OSError, UnicodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{table} is no table of marks that the page exported ({type(error).__name__})") from error


def _photos(library: Library) -> Iterator[tuple[Photo, int]]:
    """Photos that have a descriptor, with its key."""
    return ((photo, key) for page in library.catalogue.pages() for photo, key in page if key is not None)

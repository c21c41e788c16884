"""Adapt a library to its photos, by labels and the stored descriptors; no photo is read."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

import dolglab
from dolglab.errors import UserError, pluralize
from dolglab.library.labelled import Labelled, by_column, by_folder, described_photos
from dolglab.library.library import ADAPTER, Library
from dolglab.library.naming import marked_encoding, printable
from dolglab.retrieval.adapter import Adapter

# Columns of a table of marks that the page exports, and the mark of photos that show what the table is named after.
NUMBER, NAME, MARK, RIGHT = "photo_number", "photo", "mark", "right"


def adapt(
    folder: str, *, column: str | None = None, labelled: str | None = None, marks: Sequence[str] = (), seed: int = 0
) -> None:
    """Learn an adapter from the library's labelled photos, print its gain, and apply it if there is one.

    Args:
        folder: the library.
        column: metadata column with the labels.
        labelled: folder with one sub-folder per landmark.
        marks: tables that the page exported, one per landmark.
        seed: seed of the splits.

    Exactly one of `column`, `labelled` and `marks` is given. Raises UserError, and changes nothing, for too few labels,
    an adapter without a gain, and a library that cannot be adapted.
    """
    if sum((column is not None, labelled is not None, bool(marks))) != 1:
        raise UserError("what do the photos show? give one of --column NAME, --folder FOLDER, --marks TABLE")
    start = time.process_time()
    with closing(Library(folder)) as library, library.writing():
        library.check_adaptable()
        if column is not None:
            found, origin = list(by_column(library, column)), f"column {column}"
        elif labelled is not None:
            found, origin = list(by_folder(library, labelled)), f"folder {labelled}"
        else:
            found, origin = _by_marks(library, marks), "marks"
        adapter = _learn(library, found, origin, seed)
        library.adapt(adapter)
        seconds = time.process_time() - start
        print(
            f"adapted: {pluralize(len(library), 'photo')} in {library.folder}, {adapter.dim} values per photo, "
            f"{seconds:.1f} s of processor time; adapter: {library.folder / ADAPTER}"
        )


def _learn(library: Library, found: Sequence[Labelled], origin: str, seed: int) -> Adapter:
    """Learn an adapter from labelled photos; prints its gain. Raises UserError if there is none."""
    from threadpoolctl import threadpool_limits

    from dolglab.library.adapter_learning import learn

    photos = _distinct(found)
    names, labels = np.unique([each.label for each in photos], return_inverse=True)
    print(f"labels: {pluralize(len(photos), 'photo')} of {pluralize(len(names), 'landmark')} ({printable(origin)})")
    descriptors = library.descriptors(np.array([each.key for each in photos], np.int64))
    # With many small products, threads that wait for each other took five times the processor time.
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
        raise UserError("nothing is changed: there is no significant gain on held-out photos of the same landmarks")
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
    """Labelled photos sorted by name, without exact copies, which splits must not separate."""
    distinct: dict[bytes | str, Labelled] = {}
    for each in sorted(found, key=lambda each: each.photo.name):
        distinct.setdefault(each.photo.digest or each.photo.name, each)
    return list(distinct.values())


def _by_marks(library: Library, tables: Sequence[str]) -> list[Labelled]:
    """Photos that are marked right in tables, labelled by the tables' names.

    Raises UserError for a table that the page did not export, a table of another library, and a photo that is marked
    right in two tables.
    """
    described = {photo.id: (photo, key) for photo, key in described_photos(library)}
    found: dict[int, Labelled] = {}
    for table in tables:
        landmark = Path(table).stem
        for number, name in _right_photos(table):
            photo, key = described.get(number, (None, -1))
            if photo is None or not printable(photo.name).endswith(name):
                raise UserError(f"{table} is from another library: photo {number} of {library.folder} is not {name}")
            if found.setdefault(key, Labelled(photo, key, landmark)).label != landmark:
                raise UserError(f"{name} is marked right in {found[key].label} and in {landmark}")
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
        raise UserError(f"{table} is not a table of marks exported by the page ({type(error).__name__})") from error

"""Photos named by their neighbours: those that have a value in a column name those that have none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from src.contracts import InputError
from src.errors import counted
from src.library.changes import Change
from src.library.commands.named_photos import NamedPhotos, mark_of
from src.library.commands.tables import write_table
from src.library.contents import Photo
from src.library.library import Library

UNKNOWN = "unknown"
HEADER = ("photo", "label", "score", "nearest")
# The share of photos of other things that may be given a name, where no threshold is.
STRANGERS = 0.05


def label(
    library: Library, column: str, out: str | Path, neighbours: int = 5, least: float | None = None, write: bool = False
) -> None:
    """Write a table of the photos that have no name in a column, each with the name that its neighbours give it.

    Prints first how the photos that have one would be named by the others.

    Args:
        library: whose photos name each other.
        column: of the metadata, whose values are the names.
        out: the table: photo, name, the cosine of the nearest photo that has it, and that photo.
        neighbours: how many of the nearest photos that have a name vote, each with its cosine.
        least: cosine below which a photo is unknown; None finds one that most photos of other things do not reach.
        write: put the names into the library's column too, marked, so that they do not vote and can be made anew.

    Raises InputError where no photo has a name, and for numbers that make no sense.
    """
    if neighbours < 1 or not -1 <= (least or 0) <= 1:
        raise InputError("--neighbours must be at least 1, and --least a cosine from -1 to 1")
    with library.writing():
        named = NamedPhotos(library, column, neighbours)
        bound = _trusted(named, least)
        counts = Counter[bool]()
        with library.change() if write else nullcontext() as change:
            write_table(Path(out), HEADER, _rows(named, bound, change, counts))
    also = f", and the column {column}" if write else ""
    print(f"{counted(counts[True], 'photo')} named, {counts[False]} unknown: {out}{also}")


def _trusted(named: NamedPhotos, least: float | None) -> float:
    """The cosine below which a photo is unknown; prints what it does to the photos that have a name."""
    strangers = named.strangers()
    if not len(strangers):
        if least is None:
            raise InputError(f"all photos in {named.column} have one name: say with --least what is unlike them")
        return least
    # Rounded up, so that what is printed does the same.
    bound = math.ceil(1000 * np.quantile(strangers, 1 - STRANGERS)) / 1000 if least is None else least
    right, scores = named.left_out()
    sure = scores >= bound
    shares = [f"{100 * part.mean():.1f} %" for part in (right & sure, ~right & sure, ~sure)]
    print(
        f"tried with --least {bound:g} on {counted(len(right), 'photo')} whose name is known:\n"
        f"  as if it had none: {shares[0]} get their own name, {shares[1]} another one, {shares[2]} are unknown\n"
        f"  as if no photo had that name: {100 * (strangers >= bound).mean():.1f} % get another one"
    )
    return bound


def _rows(
    named: NamedPhotos, least: float, change: Change | None, counts: Counter[bool]
) -> Iterator[tuple[str, str, str, str]]:
    for photo, name, score, nearest in named.answers():
        sure = score >= least
        counts[sure] += 1
        if change is not None:
            _join(change, photo, named.column, (name, score) if sure else None)
        yield photo.name, name if sure else UNKNOWN, f"{score:.4f}", nearest.name


def _join(change: Change, photo: Photo, column: str, given: tuple[str, float] | None) -> None:
    """Put a name into a photo's column, or take out what was put there before."""
    mark = mark_of(column)
    kept = {key: value for key, value in photo.metadata.items() if key not in (column, mark)}
    added = {column: given[0], mark: f"{given[1]:.4f}"} if given else {}
    if kept | added != photo.metadata:
        change.describe(photo.name, kept | added)

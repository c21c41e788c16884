"""A catalogue in a CSV file, joined to photos by their files' names."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from src.contracts import InputError

KEY = "file"


def read_metadata(path: str | Path, find: Callable[[str], list[str]]) -> Iterator[tuple[str | None, dict[str, str]]]:
    """The other columns of each row, and the whole name of the photo that it is of; None where it is of none.

    The column `file` may hold a whole path, the end of one, or a name alone.

    Args:
        find: gives the photos whose path ends so (see `Listing.ending`).

    Raises InputError for a table without that column, and for a name that several photos have.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as table:
            reader = csv.DictReader(table)
            if KEY not in (reader.fieldnames or ()):
                raise InputError(f"{path} has no column `{KEY}`, but {', '.join(reader.fieldnames or ()) or 'none'}")
            for row in reader:
                columns = {key: value or "" for key, value in row.items() if key is not None}
                yield _one(path, columns.pop(KEY), find), columns
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error


def _one(path: str | Path, name: str, find: Callable[[str], list[str]]) -> str | None:
    names = find(name)
    if len(names) > 1:
        raise InputError(f"{path}: {len(names)} photos are called {name}, such as {names[0]}: write more of the path")
    return names[0] if names else None

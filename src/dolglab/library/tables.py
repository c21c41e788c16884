"""CSV tables: metadata that a person joins to a library's photos, and those that commands write."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dolglab.errors import UserError
from dolglab.io import atomic_path

# The column that says which photo a row is of.
FILE_COLUMN = "file"


def read_metadata(path: str | Path, find: Callable[[str], list[str]]) -> Iterator[tuple[str | None, dict[str, str]]]:
    """The other columns of each row, and the whole name of the photo that it is of; None where it is of none.

    The column `file` may hold a whole path, the end of one, or a name alone.

    Args:
        find: gives the photos whose path ends so (see `Listing.ending`).

    Raises UserError for a table without that column, and for a name that several photos have.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as table:
            reader = csv.DictReader(table)
            fields = reader.fieldnames or ()
            if FILE_COLUMN not in fields:
                raise UserError(f"{path} has no column `{FILE_COLUMN}`, but {', '.join(fields) or 'none'}")
            for row in reader:
                columns = {key: value or "" for key, value in row.items() if key is not None}
                name = columns.pop(FILE_COLUMN)
                found = find(name)
                if len(found) > 1:
                    raise UserError(
                        f"{path}: {len(found)} photos are called {name}, such as {found[0]}: write more of the path"
                    )
                yield found[0] if found else None, columns
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from error


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV row after row, in one step; folders are made as needed.

    Names keep the very bytes that they have on disk. Raises UserError for a file that cannot be written.
    """
    try:
        with (
            atomic_path(path) as aside,
            aside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            table = csv.writer(file)
            table.writerow(header)
            table.writerows(rows)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error

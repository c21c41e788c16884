"""A catalogue in a CSV file, joined to photos by their files' names."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from src.contracts import InputError
from src.library.photos import File

KEY = "file"


def read_metadata(path: str | Path, files: Sequence[File]) -> tuple[dict[str, dict[str, str]], int]:
    """The other columns of each file's row, by the file's whole name, and how many rows name no file.

    The column `file` may hold a whole path, the end of one, or a name alone. Raises InputError for a table without that
    column, and for a name that several files have.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as table:
            reader = csv.DictReader(table)
            if KEY not in (reader.fieldnames or ()):
                raise InputError(f"{path} has no column `{KEY}`, but {', '.join(reader.fieldnames or ()) or 'none'}")
            rows = [{key: value or "" for key, value in row.items() if key is not None} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error
    named = _named(files, {row[KEY].strip("/") for row in rows})
    found: dict[str, dict[str, str]] = {}
    missing = 0
    for row in rows:
        names = named.get(row.pop(KEY).strip("/"), [])
        if len(names) > 1:
            raise InputError(
                f"{path}: {len(names)} photos are called {Path(names[0]).name}, such as {names[0]}: write more "
                "of the path"
            )
        missing += not names
        found |= dict.fromkeys(names, row)
    return found, missing


def _named(files: Sequence[File], wanted: set[str]) -> dict[str, list[str]]:
    """Files by those ends of their paths, from a whole name on, that are `wanted`."""
    named: dict[str, list[str]] = {}
    for file in files:
        parts = file.name.strip("/").split("/")
        for end in ("/".join(parts[start:]) for start in range(len(parts))):
            if end in wanted:
                named.setdefault(end, []).append(file.name)
    return named

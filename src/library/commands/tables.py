"""Tables for a spreadsheet, written row by row."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from src.contracts import InputError


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV beside `path`, row after row, then rename it into place; folders are made as needed.

    Names keep the very bytes that they have on disk. Raises InputError for a file that cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, header, rows)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.writer(file)
            table.writerow(header)
            table.writerows(rows)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)

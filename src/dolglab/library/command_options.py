"""Tables for a spreadsheet, written row by row."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from dolglab.errors import UserError

NEAR = "Cosine from which on two photos are near-duplicates; what is right depends on the model."
SURE = "Cosine below which a photo is unknown; by default one that 95 % of photos with other names do not reach."

Folder = Annotated[str, typer.Option(help="The library's folder.")]
Table = Annotated[str, typer.Option(help="The table to write, a CSV.")]
Bad = Annotated[bool, typer.Option("--bad", help="Name what could not be read.")]
Photos = Annotated[list[str] | None, typer.Argument(help="Photos, by their paths or addresses.")]
Gone = Annotated[bool, typer.Option("--gone", help="Those whose files are no longer there.")]
Near = Annotated[float, typer.Option(help=NEAR)]
Column = Annotated[str, typer.Option(help="The column that has the names of some photos.")]
Neighbours = Annotated[int, typer.Option(help="How many of the nearest photos with a name vote.")]
Sure = Annotated[float | None, typer.Option(help=SURE)]
Write = Annotated[bool, typer.Option("--write", help="Put the names into the library's column too.")]
Sources = Annotated[list[str], typer.Argument(help="Libraries; they stay as they are.")]
Target = Annotated[str, typer.Option(help="The library that takes them in; made where there is none.")]


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV beside `path`, row after row, then rename it into place; folders are made as needed.

    Names keep the very bytes that they have on disk. Raises UserError for a file that cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, header, rows)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


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

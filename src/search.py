"""Search a library by photo: `python -m src.search photo.jpg --library library/`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from src.errors import InputError


def main(
    queries: Annotated[list[str], typer.Argument(help="Photos to search for, or folders of them.")],
    library: Annotated[str, typer.Option(help="The library's folder.")],
    top: Annotated[int, typer.Option(help="Answers a query.", min=1)] = 20,
    box: Annotated[str | None, typer.Option(help="Search for this part alone: x1,y1,x2,y2 in pixels.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Only photos with this in a column: COLUMN=VALUE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the photos whose descriptors are nearest, with the cosine of each."""
    from rich.console import Console

    from src.library.answers import as_data, table_of
    from src.library.finder import Finder
    from src.library.photos import find_photos
    from src.library.query import photo_pixels, read_box

    try:
        finder = Finder(library)
        files = find_photos(queries)
        part = None if box is None else read_box(box)
        pixels = [photo_pixels(file.name, finder.max_side, part) for file in files]
        answers = finder.search(pixels, top, read_filters(where or []))
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    pairs = [(file.name, answer) for file, answer in zip(files, answers, strict=True)]
    if as_json:
        typer.echo(json.dumps([as_data(*pair) for pair in pairs], indent=1))
        return
    for pair in pairs:
        Console().print(table_of(*pair))


def read_filters(where: list[str]) -> dict[str, str]:
    """Values by column. Raises InputError for what is no COLUMN=VALUE."""
    for condition in where:
        if "=" not in condition:
            raise InputError(f"--where wants COLUMN=VALUE, not {condition}")
    return dict(condition.split("=", 1) for condition in where)


if __name__ == "__main__":
    typer.run(main)

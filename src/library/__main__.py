"""What else can be done with a library: `python -m src.library COMMAND --library library/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from src.library.commands import options as o
from src.use import one_line

if TYPE_CHECKING:
    from src.library.library import Library

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def info(library: o.Folder, bad: o.Bad = False) -> None:
    """Say how many photos there are, which model described them, and how large the library is."""
    from src.library.commands.about import about

    about(_open(library), bad)


@app.command()
def remove(library: o.Folder, photos: o.Photos = None, gone: o.Gone = False) -> None:
    """Take photos out of the library; their files stay."""
    from src.library.commands.removal import remove

    remove(_open(library), photos or [], gone)


@app.command()
def duplicates(library: o.Folder, out: o.Table = "duplicates.csv", least: o.Near = 0.98) -> None:
    """Write clusters of near-duplicates: cluster, photo, its cosine to the cluster's largest."""
    from src.library.commands.duplicates import write_duplicates

    write_duplicates(_open(library), out, least)


@app.command()
def label(
    library: o.Folder,
    column: o.Column,
    out: o.Table = "labels.csv",
    neighbours: o.Neighbours = 5,
    least: o.Sure = None,
    write: o.Write = False,
) -> None:
    """Name photos by their neighbours that have a name, and say how far that can be trusted."""
    from src.library.commands.labelling import label

    label(_open(library), column, out, neighbours, least, write)


@app.command()
def merge(libraries: o.Sources, library: o.Target) -> None:
    """Join libraries, such as those of `src.embed --shard`, into one."""
    from src.library.commands.merging import merge

    merge(libraries, library)


def _open(folder: str) -> Library:
    from src.library.library import Library

    return Library(folder)


if __name__ == "__main__":
    with one_line():
        app()

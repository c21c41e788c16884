"""What else can be done with a library: `dolglab library COMMAND --library library/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from dolglab.commands.typer_cli import user_errors
from dolglab.library import command_options as o

if TYPE_CHECKING:
    from dolglab.library.library import Library

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def info(library: o.Folder, bad: o.Bad = False) -> None:
    """Say how many photos there are, which model described them, and how large the library is."""
    from dolglab.library.maintenance import about

    about(_open(library), bad)


@app.command()
def remove(library: o.Folder, photos: o.Photos = None, gone: o.Gone = False) -> None:
    """Take photos out of the library; their files stay."""
    from dolglab.library.maintenance import remove

    remove(_open(library), photos or [], gone)


@app.command()
def duplicates(library: o.Folder, out: o.Table = "duplicates.csv", least: o.Near = 0.98) -> None:
    """Write clusters of near-duplicates: cluster, photo, its cosine to the cluster's largest."""
    from dolglab.library.duplicates import write_duplicates

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
    from dolglab.library.labelling import label

    label(_open(library), column, out, neighbours, least, write)


@app.command()
def merge(libraries: o.Sources, library: o.Target) -> None:
    """Join libraries, such as those of `dolglab embed --shard`, into one."""
    from dolglab.library.maintenance import merge

    merge(libraries, library)


def _open(folder: str) -> Library:
    from dolglab.library.library import Library

    return Library(folder)


if __name__ == "__main__":
    with user_errors():
        app()

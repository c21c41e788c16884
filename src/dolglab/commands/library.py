"""Manage a library: `dolglab library COMMAND --library library`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dolglab.commands.typer_cli import Allow, run_app, user_errors

NEAR = "Smallest cosine of near-duplicates; a good value depends on the model."
REST = "Also write a text file with the paths of the photos that need not be kept, one per line."
EACH = "Compare all pairs of photos; from 20,000 photos on, only similar ones are compared by default."
SURE = "Cosine below which a photo stays unnamed; by default, 95 % of photos with other names are below it."
PHOTOS = "Photos and folders, by path or URL, or by the end of it."
METHOD = "pca (two principal axes of the descriptors), or umap (shows groups better, takes minutes)."
LABELLED = "A folder of embedded photos with one sub-folder per landmark, which names the photos below it."
MARKS = "A table of marks exported by the page; its name is the label of the photos marked right; may be repeated."
NO_EXIF = "Remove date and place, and read none from now on; values of --metadata stay."
GONE = "Remove photos whose files no longer exist, except on disks that are not mounted."

Folder = Annotated[str, typer.Option(help="The library's folder.")]
Table = Annotated[str, typer.Option(help="The CSV file to write.")]

app = typer.Typer(help=__doc__, add_completion=False)


@app.callback()
def main(allowed: Allow = None) -> None:
    """Manage a library."""
    from dolglab.data.addresses import allow

    allow(allowed or ())


@app.command()
def info(
    library: Folder, bad: Annotated[bool, typer.Option("--bad", help="List photos that could not be read.")] = False
) -> None:
    """Print the number of photos, the model that described them, and the size of the library."""
    from dolglab.library.library import Library
    from dolglab.library.maintenance import print_info

    print_info(Library(library), bad)


@app.command()
def remove(
    library: Folder,
    photos: Annotated[list[str] | None, typer.Argument(help=PHOTOS)] = None,
    gone: Annotated[bool, typer.Option("--gone", help=GONE)] = False,
) -> None:
    """Remove photos from the library; their files stay."""
    from dolglab.library.library import Library
    from dolglab.library.maintenance import remove

    remove(Library(library), photos or [], gone)


@app.command()
def duplicates(
    library: Folder,
    out: Table = "duplicates.csv",
    min_cosine: Annotated[float, typer.Option("--least", help=NEAR)] = 0.98,
    exact: Annotated[bool, typer.Option("--exact", help=EACH)] = False,
    rest: Annotated[str | None, typer.Option(help=REST)] = None,
) -> None:
    """Write clusters of near-duplicates, starting with the photo to keep: most pixels, then largest file, then oldest.

    Photos are listed with pixels, bytes, and the cosine to the one to keep. Nothing is deleted.
    """
    from dolglab.library.duplicates import write_duplicates
    from dolglab.library.library import Library

    write_duplicates(Library(library), out, min_cosine, exact, rest)


@app.command()
def exif(library: Folder, remove: Annotated[bool, typer.Option("--remove", help=NO_EXIF)] = False) -> None:
    """Read date, place and pixel size from photo files into an older library, or remove date and place."""
    from dolglab.library.exif import read_exif, remove_exif
    from dolglab.library.library import Library

    (remove_exif if remove else read_exif)(Library(library))


@app.command()
def label(
    library: Folder,
    column: Annotated[str | None, typer.Option(help="The column with the names of some photos.")] = None,
    folder: Annotated[str | None, typer.Option(help=LABELLED)] = None,
    out: Table = "labels.csv",
    neighbours: Annotated[int, typer.Option(help="Number of nearest named photos that vote.")] = 5,
    min_cosine: Annotated[float | None, typer.Option("--least", help=SURE)] = None,
    write: Annotated[bool, typer.Option("--write", help="Also write the names to the column.")] = False,
) -> None:
    """Name photos by their nearest named photos, and estimate the accuracy."""
    from dolglab.library.labelling import label
    from dolglab.library.library import Library

    label(
        Library(library), out, column=column, labelled=folder, neighbours=neighbours, min_cosine=min_cosine, write=write
    )


@app.command("map")
def draw_map(library: Folder, method: Annotated[str, typer.Option(help=METHOD)] = "pca") -> None:
    """Compute a map on which similar photos are near each other; `dolglab serve` shows it."""
    from dolglab.library.library import Library
    from dolglab.library.map_making import make_map

    make_map(Library(library), method)


@app.command()
def adapt(
    library: Folder,
    column: Annotated[str | None, typer.Option(help="The column with labels of some photos.")] = None,
    folder: Annotated[str | None, typer.Option(help=LABELLED)] = None,
    marks: Annotated[list[str] | None, typer.Option(help=MARKS)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the photos held out for validation and test.", min=0)] = 0,
) -> None:
    """Adapt the library to its photos: learn from labels and descriptors, test, and keep the result if it is better."""
    from dolglab.library.adapting import adapt

    adapt(library, column=column, labelled=folder, marks=marks or (), seed=seed)


@app.command()
def merge(
    libraries: Annotated[list[str], typer.Argument(help="Libraries to merge; they are not changed.")],
    library: Annotated[str, typer.Option(help="The merged library; created if it does not exist.")],
) -> None:
    """Merge libraries, such as those of `dolglab embed --shard`."""
    from dolglab.library.maintenance import merge

    merge(libraries, library)


if __name__ == "__main__":
    with user_errors():
        run_app("library", app, sys.argv[1:] or ["--help"])

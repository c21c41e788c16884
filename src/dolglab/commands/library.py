"""What else can be done with a library: `dolglab library COMMAND --library library`."""

from __future__ import annotations

from typing import Annotated

import typer

from dolglab.commands.typer_cli import Allow, user_errors

NEAR = "Cosine from which on two photos are near-duplicates; what is right depends on the model."
REST = "Write a text too, with the paths of the photos that need not be kept, one a line."
EACH = "Compare each photo with each, also of 20,000 or more, which are compared within cells of like ones."
SURE = "Cosine below which a photo is unknown; by default one that 95 % of photos with other names do not reach."
PHOTOS = "Photos, by their paths or addresses or the ends of these, and folders of them."
METHOD = "pca, two principal axes of the descriptors, or umap, which shows groups better and takes minutes."
LABELLED = "A folder of embedded photos with one sub-folder a landmark."
MARKS = "A table of marks that the page exported, named as what is right there; may be repeated."
NO_EXIF = "Take date and place out, and take none in from now on; what --metadata gave stays."
GONE = "Those whose files are no longer there, but for disks that are not mounted."

Folder = Annotated[str, typer.Option(help="The library's folder.")]
Table = Annotated[str, typer.Option(help="The table to write, a CSV.")]

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.callback()
def main(allowed: Allow = None) -> None:
    """What else can be done with a library."""
    from dolglab.data.addresses import allow

    allow(allowed or ())


@app.command()
def info(
    library: Folder, bad: Annotated[bool, typer.Option("--bad", help="Name what could not be read.")] = False
) -> None:
    """Say how many photos there are, which model described them, and how large the library is."""
    from dolglab.library.library import Library
    from dolglab.library.maintenance import print_info

    print_info(Library(library), bad)


@app.command()
def remove(
    library: Folder,
    photos: Annotated[list[str] | None, typer.Argument(help=PHOTOS)] = None,
    gone: Annotated[bool, typer.Option("--gone", help=GONE)] = False,
) -> None:
    """Take photos out of the library; their files stay."""
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
    """Write clusters of near-duplicates, the photo to keep first: most pixels, then the largest file, then the oldest.

    A cluster's photos are listed with pixels, bytes, and their cosine to the one to keep. Nothing is deleted.
    """
    from dolglab.library.duplicates import write_duplicates
    from dolglab.library.library import Library

    write_duplicates(Library(library), out, min_cosine, exact, rest)


@app.command()
def exif(library: Folder, remove: Annotated[bool, typer.Option("--remove", help=NO_EXIF)] = False) -> None:
    """Read date, place and pixel size from photos' files into a library of an earlier version, or take them out."""
    from dolglab.library.exif import read_exif, remove_exif
    from dolglab.library.library import Library

    (remove_exif if remove else read_exif)(Library(library))


@app.command()
def label(
    library: Folder,
    column: Annotated[str, typer.Option(help="The column that has the names of some photos.")],
    out: Table = "labels.csv",
    neighbours: Annotated[int, typer.Option(help="How many of the nearest photos with a name vote.")] = 5,
    min_cosine: Annotated[float | None, typer.Option("--least", help=SURE)] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the names into the library's column too.")] = False,
) -> None:
    """Name photos by their neighbours that have a name, and say how far that can be trusted."""
    from dolglab.library.labelling import label
    from dolglab.library.library import Library

    label(Library(library), column, out, neighbours, min_cosine, write)


@app.command("map")
def draw_map(library: Folder, method: Annotated[str, typer.Option(help=METHOD)] = "pca") -> None:
    """Give each photo a place on a map, where like photos lie near each other; `dolglab serve` shows it."""
    from dolglab.library.library import Library
    from dolglab.library.map_making import make_map

    make_map(Library(library), method)


@app.command()
def adapt(
    library: Folder,
    column: Annotated[str | None, typer.Option(help="The column that says what some photos show.")] = None,
    folder: Annotated[str | None, typer.Option(help=LABELLED)] = None,
    marks: Annotated[list[str] | None, typer.Option(help=MARKS)] = None,
    seed: Annotated[int, typer.Option(help="Of what is held out to choose and to test.", min=0)] = 0,
) -> None:
    """Adapt the library to what its photos show: learn from labels and descriptors, test, and keep what gains."""
    from dolglab.library.adapting import adapt

    adapt(library, column=column, labelled=folder, marks=marks or (), seed=seed)


@app.command()
def merge(
    libraries: Annotated[list[str], typer.Argument(help="Libraries; they stay as they are.")],
    library: Annotated[str, typer.Option(help="The library that takes them in; made where there is none.")],
) -> None:
    """Join libraries, such as those of `dolglab embed --shard`, into one."""
    from dolglab.library.maintenance import merge

    merge(libraries, library)


if __name__ == "__main__":
    with user_errors():
        app(prog_name="dolglab library")

"""What photos of a library show, as the user says: by a metadata column, or by sub-folders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dolglab.errors import UserError
from dolglab.library.contents import Photo, score_column_of
from dolglab.library.library import Library
from dolglab.library.maintenance import paths_of
from dolglab.library.naming import printable


class Labelled(NamedTuple):
    """A photo with the key of its descriptor and its label, the name of what it shows."""

    photo: Photo
    key: int
    label: str


def by_column(library: Library, column: str) -> Iterator[Labelled]:
    """Photos with a value from the user in a column; names given by neighbours are left out.

    Raises UserError if there are none.
    """
    none = True
    for photo, key in described_photos(library):
        name = photo.metadata.get(column)
        if name and score_column_of(column) not in photo.metadata:
            none = False
            yield Labelled(photo, key, name)
    if none:
        known = ", ".join(map(printable, library.catalogue.columns())) or "none"
        raise UserError(
            f"no photo has a name in {printable(column)} (columns: {known}): name some with dolglab embed --metadata "
            "TABLE, or use --folder FOLDER with one sub-folder of embedded photos per name"
        )


def by_folder(library: Library, folder: str) -> Iterator[Labelled]:
    """Photos below the sub-folders of a folder, labelled by their names. Raises UserError if there are none."""
    starts = {f"{path.rstrip('/')}/" for path in paths_of(folder)}
    none = True
    for photo, key in described_photos(library):
        for start in filter(photo.name.startswith, starts):
            name, below, _ = photo.name.removeprefix(start).partition("/")
            if below:
                none = False
                yield Labelled(photo, key, name)
    if none:
        raise UserError(f"{library.folder} has no photo in a sub-folder of {folder}: dolglab embed it first")


def described_photos(library: Library) -> Iterator[tuple[Photo, int]]:
    """Photos that have a descriptor, with its key."""
    return ((photo, key) for page in library.catalogue.pages() for photo, key in page if key is not None)

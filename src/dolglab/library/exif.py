"""What photos' files say of themselves, for a library that was made before that was kept, or shall not hold it."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from dolglab.concurrency import prefetch_map
from dolglab.data.addresses import NotAllowedError
from dolglab.data.exif import LATITUDE, TAKEN, exif_columns
from dolglab.data.image_reading import stored_size
from dolglab.data.photos import digest_of
from dolglab.errors import pluralize
from dolglab.library.contents import Photo, upright_size
from dolglab.library.library import Library
from dolglab.progress import progress

# Photos between two moments at which what was read is kept.
COMMIT_PHOTOS = 512


def remove_exif(library: Library) -> None:
    """Take out the columns that came from photos' EXIF, and take none in from now on; prints so.

    What a table gave stays.
    """
    with library.writing(), library.change() as change:
        change.take_exif(False)
    columns = ", ".join(library.catalogue.columns()) or "none"
    print(f"date and place from EXIF are out of {library.folder}, and stay out: its columns are {columns}")


def read_exif(library: Library, threads: int = 2) -> None:
    """Read size, date and place of photos whose files were never asked, and of all new ones from now on.

    Nothing is described anew. What a table gave stays and counts where both have a column. Prints how many photos said
    something, and how many files are gone or have changed since they were described.
    """
    with library.writing():
        with library.change() as change:
            change.take_exif(True)
        todo = [
            photo for page in library.catalogue.pages() for photo, key in page if key is not None and _unread(photo)
        ]
        dated = placed = lost = 0
        with progress("reading", len(todo), "photos") as advance:
            photos = (photo for _, photo in prefetch_map(_read, todo, threads, 8 * threads))
            while done := list(islice(photos, COMMIT_PHOTOS)):
                with library.change() as change:
                    for photo in done:
                        lost += photo.exif is None
                        dated += TAKEN in (photo.exif or {})
                        placed += LATITUDE in (photo.exif or {})
                        if photo.exif is not None:
                            change.set_exif(photo.name, photo.exif)
                        if photo.stored is not None:
                            change.set_stored(photo.name, photo.stored)
                advance(len(done))
    missing = f"; {lost} gone or changed since: dolglab embed describes them anew" if lost else ""
    print(f"{pluralize(len(todo), 'photo')} read: {dated} with a date, {placed} with a place{missing}")


def _unread(photo: Photo) -> bool:
    return photo.exif is None or photo.stored is None


def _read(photo: Photo) -> Photo:
    """A photo with what its file says; without, where that is gone or another than was described."""
    try:
        data = photo.read()
    except (OSError, NotAllowedError):
        return replace(photo, exif=None, stored=None)
    if len(data) != photo.size or photo.digest not in (None, digest_of(data)):
        return replace(photo, exif=None, stored=None)
    size = stored_size(data)
    stored = None if size is None or photo.shape is None else upright_size(size, photo.shape)
    return replace(photo, exif=exif_columns(data), stored=stored)

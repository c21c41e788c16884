"""Read date, place and size from the files of a library's photos, or remove date and place from the library."""

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

# Number of photos after which results are committed.
COMMIT_PHOTOS = 512


def remove_exif(library: Library) -> None:
    """Remove the columns that come from EXIF, and add none from now on.

    Values from a metadata table stay.
    """
    with library.writing(), library.change() as change:
        change.take_exif(False)
    columns = ", ".join(library.catalogue.columns()) or "none"
    print(f"date and place from EXIF were removed from {library.folder} and stay out; columns: {columns}")


def read_exif(library: Library, threads: int = 2) -> None:
    """Read size, date and place from files that were not read for them before, and from all new ones from now on.

    No photo is described again. Values from a metadata table stay and take precedence. Prints how many photos have a
    date or a place, and how many files could not be read or have changed since they were described.
    """
    with library.writing():
        with library.change() as change:
            change.take_exif(True)
        todo = [
            photo for page in library.catalogue.pages() for photo, key in page if key is not None and _unread(photo)
        ]
        dated = placed = unread = 0
        with progress("reading", len(todo), "photos") as advance:
            photos = (photo for _, photo in prefetch_map(_read, todo, threads, 8 * threads))
            while done := list(islice(photos, COMMIT_PHOTOS)):
                with library.change() as change:
                    for photo in done:
                        unread += photo.exif is None
                        dated += TAKEN in (photo.exif or {})
                        placed += LATITUDE in (photo.exif or {})
                        if photo.exif is not None:
                            change.set_exif(photo.name, photo.exif)
                        if photo.stored is not None:
                            change.set_stored(photo.name, photo.stored)
                advance(len(done))
    print(f"{pluralize(len(todo), 'photo')} read: {dated} with a date, {placed} with a place")
    if unread:
        files = pluralize(unread, "file")
        print(f"not read: {files} (missing, not allowed, or changed: dolglab embed describes changed photos again)")


def _unread(photo: Photo) -> bool:
    return photo.exif is None or photo.stored is None


def _read(photo: Photo) -> Photo:
    """The photo with the size and EXIF of its file; without them if the file is missing or has changed."""
    try:
        data = photo.read()
    except (OSError, NotAllowedError):
        return replace(photo, exif=None, stored=None)
    if len(data) != photo.size or photo.digest not in (None, digest_of(data)):
        return replace(photo, exif=None, stored=None)
    size = stored_size(data)
    stored = None if size is None or photo.shape is None else upright_size(size, photo.shape)
    return replace(photo, exif=exif_columns(data), stored=stored)

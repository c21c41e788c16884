"""Pictures of the library's photos: made anew, so that nothing but pixels leaves, and only of what was described."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

from fastapi import HTTPException
from PIL import Image

from src.errors import InputError
from src.library.contents import Photo
from src.library.query import photo_pixels
from src.server.limits import Worker

# Longer sides in pixels, small pictures that are kept, 20 KB each, and requests that may wait.
SMALL, LARGE = 360, 1600
KEPT, WAITING = 1000, 16


class Pictures:
    """JPEGs of photos, made one at a time."""

    def __init__(self) -> None:
        self._worker = Worker("pictures", WAITING)
        self._small = lru_cache(KEPT)(_jpeg)

    def small(self, photo: Photo) -> bytes:
        """A thumbnail. Raises HTTPException 410 for a photo that is gone, or another than was described."""
        check_unchanged(photo)
        return self._worker(lambda: self._small(photo.name, SMALL, photo.size, photo.changed))

    def large(self, photo: Photo) -> bytes:
        """The photo for a screen. Raises as `small`."""
        check_unchanged(photo)
        return self._worker(lambda: _jpeg(photo.name, LARGE, photo.size, photo.changed))


def check_unchanged(photo: Photo) -> None:
    """Raise HTTPException 410 where a photo's file is not the one that was described.

    Who can put a link or another file in its place could otherwise have this server show whatever it can read.
    """
    if "://" in photo.name:
        return
    try:
        about = Path(photo.name).stat()
    except OSError:
        raise gone() from None
    if (about.st_size, about.st_mtime_ns) != (photo.size, photo.changed):
        raise HTTPException(410, "this photo has changed since it was described: embed its folder again")


def gone() -> HTTPException:
    """A photo whose file cannot be read any more."""
    return HTTPException(410, "this photo's file is gone, or cannot be read any more")


def _jpeg(name: str, side: int, size: int, changed: int) -> bytes:
    try:
        pixels = photo_pixels(name, side)
    except InputError:
        raise gone() from None
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "JPEG", quality=90)
    return held.getvalue()

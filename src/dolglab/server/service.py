"""What the routes ask of the library: one search at a time, one change at a time, and only so many may wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import IO, TypeVar

import numpy as np
from fastapi import HTTPException

from dolglab.data.colour import Pixels
from dolglab.data.image_errors import BrokenImageError
from dolglab.data.photos import Box, check_size, query_pixels
from dolglab.errors import UserError
from dolglab.library.catalogue import Columns, Descriptors, Photo
from dolglab.library.explain import Explanation
from dolglab.library.library import Answer, Library, LibraryBusy
from dolglab.library.search_engine import SearchEngine, search_with_feedback
from dolglab.server import photo_files
from dolglab.server.schemas import check_header
from dolglab.server.security import Settings

T = TypeVar("T")

# Requests that may wait for one of the same kind that runs.
WAITING_SEARCHES, WAITING_CHANGES, WAITING_PICTURES = 8, 4, 16
# Pixels of the longer side, and thumbnails that are kept in memory, of about 20 KB each.
THUMBNAIL_SIDE, SCREEN_SIDE = 360, 1600
CACHED_THUMBNAILS = 1000


class ConcurrencyLimiter:
    """At most `limit` callers are within a `with` block: one more raises HTTPException 503, "too many WHAT"."""

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self._free = threading.Semaphore(limit)

    def __enter__(self) -> None:
        if not self._free.acquire(blocking=False):
            raise HTTPException(503, f"too many {self._what} at once: try again in a moment", {"Retry-After": "2"})

    def __exit__(self, *error: object) -> None:
        self._free.release()


class SerialExecutor:
    """Runs one call after another in a thread of its own, while up to `waiting` more callers wait.

    The network always runs in one thread: every thread that it ran in would keep threads and memory of its own.
    """

    def __init__(self, what: str, waiting: int) -> None:
        self._limiter = ConcurrencyLimiter(what, waiting + 1)
        self._thread = ThreadPoolExecutor(1, what)

    def __call__(self, work: Callable[[], T]) -> T:
        """What `work` returns. Raises what that raises, and HTTPException 503 where too many wait."""
        with self._limiter:
            return self._thread.submit(work).result()


class SearchService:
    """A library that is served.

    A photo is decoded, embedded and compared while nobody else's is, so that memory does not grow with the number of
    clients. Changes go by a connection of their own: searches see a change whole or not at all.

    Methods raise UserError for what a client must mend, and HTTPException: 403 for changes that the settings do not
    allow, 404 for a number that no photo has, 410 for a photo whose file is gone or another, 413 for too many pixels,
    503 where too many wait, and 507 for a full disk.
    """

    def __init__(self, finder: SearchEngine, settings: Settings) -> None:
        self.finder = finder
        self.settings = settings
        self._searches = SerialExecutor("searches", WAITING_SEARCHES)
        self._pictures = SerialExecutor("pictures", WAITING_PICTURES)
        self._exports = SerialExecutor("exports", WAITING_CHANGES)
        self._changes = ConcurrencyLimiter("changes", WAITING_CHANGES + 1)
        self._write_lock = threading.Lock()
        # Size and time of change are part of the key: another file under the same name is another thumbnail.
        self._thumbnail = lru_cache(CACHED_THUMBNAILS)(
            lambda name, size, changed: photo_files.photo_jpeg(name, THUMBNAIL_SIDE)
        )

    def search(
        self, data: bytes, box: Box | None, count: int, filters: Columns, verify: bool
    ) -> tuple[Descriptors, list[Answer]]:
        """The query's descriptor, (dim,), and the best answers to it."""
        check_header(data, self.settings.max_pixels)

        def work() -> tuple[Descriptors, list[Answer]]:
            pixels, descriptor = self._embed(data, box)
            answers = self.finder.search([pixels], count, filters, verify, descriptor)
            return descriptor[0], answers[0]

        return self._searches(work)

    def rerank(
        self, query: Descriptors, right: Sequence[int], wrong: Sequence[int], count: int, filters: Columns
    ) -> list[Answer]:
        """The best answers to a query's descriptor, (dim,), moved by marks, see `search_with_feedback`."""
        return self._searches(lambda: search_with_feedback(self.finder.library, query, right, wrong, count, filters))

    def explain(self, data: bytes, box: Box | None, number: int) -> Explanation:
        """Why a photo is found for a query."""
        check_header(data, self.settings.max_pixels)
        photo = self.photo(number)
        photo_files.check_unchanged(photo)

        def work() -> Explanation:
            pixels = query_pixels(data, "the photo", self.finder.max_side, box, self.finder.reading)
            try:
                return self.finder.explain(pixels, Answer(photo, 0.0))
            except UserError:
                raise photo_files.file_gone() from None

        return self._searches(work)

    def photo(self, number: int) -> Photo:
        """The photo of that number."""
        return photo_files.find_photo(self.finder.library, number)

    def thumbnail(self, number: int) -> bytes:
        """A small JPEG of a photo."""
        photo = self.photo(number)
        photo_files.check_unchanged(photo)
        return self._pictures(lambda: self._thumbnail(photo.name, photo.size, photo.changed))

    def image(self, number: int) -> bytes:
        """A JPEG of a photo for a screen."""
        photo = self.photo(number)
        photo_files.check_unchanged(photo)
        return self._pictures(lambda: photo_files.photo_jpeg(photo.name, SCREEN_SIDE))

    def add(self, data: bytes, name: str, metadata: Columns) -> Photo:
        """Store and embed a photo."""
        self._check_writable()
        header = check_header(data, self.settings.max_pixels)
        try:
            check_size(header.height, header.width)
        except BrokenImageError as error:
            raise UserError(f"the photo is not added: {error}") from None
        pixels, descriptor = self._searches(lambda: self._embed(data, None))
        height, width = pixels.shape[:2]
        with self._writing() as library:
            return photo_files.add_photo(
                library, data, photo_files.safe_name(name, header.suffix), (height, width), descriptor, metadata
            )

    def remove(self, number: int) -> bool:
        """Take a photo out; returns whether its file was deleted too."""
        self._check_writable()
        with self._writing() as library:
            return photo_files.remove_photo(library, number)

    def export(
        self, name: str, query: tuple[str, bytes] | None, right: Sequence[int], wrong: Sequence[int]
    ) -> IO[bytes]:
        """Marks as a zip to train on, see `training_zip`."""
        photos = [[self.photo(number) for number in numbers] for numbers in (right, wrong)]
        return self._exports(lambda: photo_files.training_zip(name, query, *photos))

    def _check_writable(self) -> None:
        if self.settings.read_only:
            raise HTTPException(403, "this server only searches (--read-only)")

    def _embed(self, data: bytes, box: Box | None) -> tuple[Pixels, Descriptors]:
        """A photo's pixels, (H, W, 3), and its descriptor, (1, dim)."""
        pixels = query_pixels(data, "the photo", self.finder.max_side, box, self.finder.reading)
        descriptor = self.finder.loaded.describe([pixels])
        if not np.isfinite(descriptor).all():
            raise UserError("the network gives this photo no finite descriptor")
        return pixels, descriptor

    @contextmanager
    def _writing(self) -> Iterator[Library]:
        with self._changes, self._write_lock, ExitStack() as stack:
            library = Library(self.finder.library.folder, self.finder.library.identity)
            stack.callback(library.close)
            try:
                stack.enter_context(library.writing())
            except LibraryBusy:
                raise HTTPException(
                    503, "another process writes to the library: try again when it has ended", {"Retry-After": "5"}
                ) from None
            yield library

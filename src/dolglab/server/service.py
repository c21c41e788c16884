"""The operations behind the routes. Each kind of work has its own thread and a bounded queue."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import lru_cache, partial
from queue import Full
from typing import IO, ParamSpec, TypeVar

import numpy as np
from fastapi import HTTPException

from dolglab.data.addresses import NotAllowedError
from dolglab.data.colour import Pixels
from dolglab.data.exif import exif_columns
from dolglab.data.image_errors import BrokenImageError
from dolglab.data.image_formats import Header, read_header
from dolglab.data.photos import Box, check_size, query_pixels
from dolglab.errors import UserError
from dolglab.library.catalogue import FILE
from dolglab.library.contents import Answer, Columns, Descriptors, Photo, upright_size
from dolglab.library.explain import Explanation
from dolglab.library.library import Library, LibraryBusy, LibraryLinked
from dolglab.library.search_engine import SearchEngine, search_with_feedback, stored_descriptors
from dolglab.library.verifier import VERIFIED
from dolglab.server import photo_files
from dolglab.server.duplicates import DuplicateSearch
from dolglab.server.folders import Folders
from dolglab.server.isolation import IsolatedExecutor
from dolglab.server.limits import FairLimiter
from dolglab.server.map_answer import EncodedMap, encode_map, map_state
from dolglab.server.schemas import check_header, short_name
from dolglab.server.security import Settings

P = ParamSpec("P")
T = TypeVar("T")

# Maximum requests of each kind, running or waiting.
SEARCHES, VERIFICATIONS, PICTURES, EXPORTS, MAPS, CHANGES = 16, 8, 32, 8, 16, 16
# Memory limit of decoding in bytes: a constant, plus bytes per allowed pixel, as some decoders keep several copies.
DECODER, DECODED_PIXEL = 512_000_000, 24
# Longer sides in pixels, and cached thumbnails of about 20 KB each.
THUMBNAIL_SIDE, SCREEN_SIDE = 360, 1600
CACHED_THUMBNAILS = 1000
# Cached maps, one per column, of 18 bytes per photo.
CACHED_MAPS = 8


def build_decoder(settings: Settings) -> IsolatedExecutor:
    """The processes that decode uploads."""
    limits = settings.limits
    memory = DECODER + DECODED_PIXEL * settings.max_pixels
    return IsolatedExecutor(memory, limits.quick, limits.decoding, preload=("cv2",))


@dataclass(frozen=True)
class SearchQuery:
    """A query: an uploaded photo or a photo of the library, and optionally a box.

    Attributes:
        data: the bytes of an uploaded photo.
        like: a photo of the library, which is left out of its own answers.
        box: x1, y1, x2, y2 in pixels, for `like` of the photo as it was embedded; None for the whole photo.
    """

    data: bytes | None = None
    like: Photo | None = None
    box: Box | None = None

    @property
    def numbers(self) -> list[int]:
        """The id of `like`, if there is one."""
        return [] if self.like is None or self.like.id is None else [self.like.id]


class SerialExecutor:
    """Runs calls one after another in its own thread. At most `places` run or wait, of one client at most half of them.

    A network must always run in the same thread: PyTorch keeps worker threads and memory for every thread it runs in.
    """

    def __init__(self, what: str, places: int) -> None:
        self._limiter = FairLimiter(what, places)
        self._thread = ThreadPoolExecutor(1, what)

    def __call__(self, work: Callable[[], T]) -> T:
        """Run `work` and return its result. Raises its exceptions, and HTTPException 503 if too many wait."""
        with self._limiter:
            return self._thread.submit(copy_context().run, work).result()


class SearchService:
    """The library that a server searches and changes.

    Searches run one at a time, so that memory does not grow with the number of clients. Slower work, such as matching
    local features, runs in other threads and does not delay plain searches. Uploads are decoded in the processes of
    `decoder`. Changes use their own connection to the catalogue: a search sees a change completely or not at all.

    Methods raise UserError for invalid input, and HTTPException: 403 if the settings forbid changes, 404 for an unknown
    id, 410 for a photo whose file is missing or has changed, 413 for too many pixels or if decoding takes too long or
    too much memory, 503 if too many requests wait, and 507 for a full disk.
    """

    def __init__(self, finder: SearchEngine, settings: Settings, decoder: IsolatedExecutor) -> None:
        self.finder = finder
        self.settings = settings
        self.folders = Folders(finder.library.catalogue)
        self._decoder = decoder
        self._searches = SerialExecutor("searches", SEARCHES)
        self._verifications = SerialExecutor("verifications", VERIFICATIONS)
        self._pictures = SerialExecutor("pictures", PICTURES)
        self._exports = SerialExecutor("exports", EXPORTS)
        self._maps = SerialExecutor("maps", MAPS)
        self._changes = FairLimiter("changes", CHANGES)
        self.duplicates = DuplicateSearch(finder.library)
        # Cached for one version of the library.
        self._places = lru_cache(1)(lambda version: finder.library.catalogue.places())
        self._write_lock = threading.Lock()
        self._reopening = threading.Lock()
        self._successor: SearchService | None = None
        # Size and modification time are part of the key: a changed file gets a new thumbnail.
        self._thumbnail = lru_cache(CACHED_THUMBNAILS)(
            lambda *photo: photo_files.photo_jpeg(Photo(*photo), THUMBNAIL_SIDE)
        )
        # `state` only serves as the key, see `map_state`.
        self._map = lru_cache(CACHED_MAPS)(lambda state, column: encode_map(finder.library, column))

    def current(self) -> SearchService:
        """This service or, once another process has adapted the library, a new one of the adapted library."""
        if not self.finder.library.is_outdated():
            return self
        with self._reopening:
            if self._successor is None:
                self._successor = SearchService(self.finder.reopened(), self.settings, self._decoder)
            return self._successor

    def query(self, data: bytes | None, number: int | None, box: Box | None) -> SearchQuery:
        """A query: `data`, or the id of a photo of the library. Raises HTTPException 422 for both or neither."""
        if (data is None) == (number is None):
            raise HTTPException(422, "photo: send either `photo`, or `like` with the id of a photo of the library")
        return SearchQuery(data, None if number is None else self.photo(number), box)

    def search(
        self, query: SearchQuery, count: int, filters: Columns, folder: str, verify: bool, exact: bool
    ) -> tuple[Descriptors, list[Answer]]:
        """The query's descriptor, (dim,), and its best answers. A whole photo of the library needs no forward pass."""
        path = self.folders.path(folder)
        known = query.like is not None and query.box is None
        pixels = self._pixels(query) if verify or not known else None

        def work() -> tuple[Descriptors, list[Answer]]:
            descriptor = self._stored(query) if known or pixels is None else self._embed(pixels)[0]
            most = max(count, VERIFIED) if verify else count
            return descriptor, search_with_feedback(
                self.finder.library, descriptor, [], [], most, filters, exact, path, query.numbers
            )

        descriptor, answers = self._searches(work)
        if verify and pixels is not None:
            answers = self._verifications(lambda: self.finder.verify(pixels, answers))
        return descriptor, answers[:count]

    def rerank(
        self,
        query: Descriptors,
        right: Sequence[int],
        wrong: Sequence[int],
        count: int,
        filters: Columns,
        folder: str,
        exact: bool,
        without: Sequence[int],
    ) -> list[Answer]:
        """The best answers to a descriptor, (dim,), adjusted by marks, see `search_with_feedback`."""
        library, path = self.finder.library, self.folders.path(folder)
        return self._searches(
            lambda: search_with_feedback(library, query, right, wrong, count, filters, exact, path, without)
        )

    def explain(self, query: SearchQuery, number: int, stacked: bool) -> Explanation:
        """Explain why a photo is found for a query, see `library.explain.explain`."""
        photo = self.photo(number)
        photo_files.check_unchanged(photo)
        pixels = self._pixels(query)

        def work() -> Explanation:
            try:
                return self.finder.explain(pixels, Answer(photo, 0.0), self._searches, stacked)
            except NotAllowedError:
                raise photo_files.not_allowed() from None
            except UserError:
                raise photo_files.file_gone() from None

        return self._verifications(work)

    def browse(self, offset: int, limit: int, filters: Columns, folder: str) -> tuple[int, list[Photo]]:
        """The number of matching photos, and a page of at most `limit` of them, sorted by path."""
        library, path = self.finder.library, self.folders.path(folder)
        library.check_filters(filters)
        total = library.catalogue.count(filters, path) if filters or path else len(library)
        return total, library.catalogue.page(offset, limit, filters, path)

    def header(self, data: bytes) -> Header:
        """The header of an encoded photo, see `check_header`."""
        return check_header(data, self.settings.max_pixels, partial(self._isolated, read_header))

    def photo(self, number: int) -> Photo:
        """The photo with an id."""
        return photo_files.find_photo(self.finder.library, number)

    def thumbnail(self, number: int) -> bytes:
        """A small JPEG of a photo."""
        photo = self.photo(number)
        photo_files.check_unchanged(photo)
        return self._pictures(lambda: self._thumbnail(photo.name, photo.size, photo.changed))

    def image(self, number: int) -> bytes:
        """A JPEG of a photo at screen size."""
        photo = self.photo(number)
        photo_files.check_unchanged(photo)
        return self._pictures(lambda: photo_files.photo_jpeg(photo, SCREEN_SIDE))

    def places(self) -> list[tuple[int, float, float]]:
        """The locations of photos, see `Catalogue.places`."""
        return self._places(self.finder.library.catalogue.version())

    def map(self, column: str) -> EncodedMap:
        """The library's map with the values of a column, see `encode_map`."""
        return self._maps(lambda: self._map(map_state(self.finder.library), column))

    def add(self, data: bytes, name: str, metadata: Columns) -> Photo:
        """Store and embed a photo."""
        self._check_writable()
        header = self.header(data)
        try:
            check_size(header.height, header.width)
        except BrokenImageError as error:
            raise UserError(f"the photo cannot be added: {error}") from None
        pixels = self._decode(data, None)
        descriptor = self._searches(lambda: self._embed(pixels))
        local = self._packed_features(pixels)
        height, width = pixels.shape[:2]
        described = Photo(
            photo_files.safe_name(name, header.suffix),
            len(data),
            0,
            (height, width),
            metadata=metadata,
            stored=upright_size((header.height, header.width), (height, width)),
            exif=self._isolated(exif_columns, data),
        )
        with self._writing() as library:
            return photo_files.add_photo(library, data, described, descriptor, local)

    def remove(self, number: int) -> bool:
        """Remove a photo; returns whether its file was deleted too."""
        self._check_writable()
        with self._writing() as library:
            return photo_files.remove_photo(library, number)

    def export(
        self, name: str, query: tuple[str, bytes] | None, right: Sequence[int], wrong: Sequence[int]
    ) -> IO[bytes]:
        """The marks as a zip for training, see `training_zip`."""
        photos = [[self.photo(number) for number in numbers] for numbers in (right, wrong)]
        return self._exports(lambda: photo_files.training_zip(name, query, *photos))

    @property
    def read_only(self) -> bool:
        """Whether photos cannot be added or removed, by the settings or for want of write permission."""
        return self.settings.read_only or not self._may_write()

    def _may_write(self) -> bool:
        folder = self.finder.library.folder
        return all(os.access(path, os.W_OK) for path in (folder, folder / FILE))

    def _check_writable(self) -> None:
        if self.settings.read_only:
            raise HTTPException(403, "this server is read-only (--read-only)")
        if not self._may_write():
            raise HTTPException(403, "this server is read-only: it has no permission to write to the library")

    def _pixels(self, query: SearchQuery) -> Pixels:
        """The pixels, (H, W, 3), of a query's box, shrunk to the size that the network expects."""
        if query.like is None:
            data = query.data or b""
            self.header(data)
            return self._decode(data, query.box)
        photo, finder = query.like, self.finder

        def work() -> Pixels:
            data = photo_files.read_photo(photo)
            name = short_name(photo.name)
            return query_pixels(data, name, finder.max_side, query.box, finder.reading, shape=photo.shape)

        return self._pictures(work)

    def _stored(self, query: SearchQuery) -> Descriptors:
        """The stored descriptor, (dim,), of a query that is a photo of the library."""
        for _, descriptor in stored_descriptors(self.finder.library, query.numbers).values():
            return descriptor
        raise HTTPException(404, "the library has no descriptor of this photo")

    def _decode(self, data: bytes, box: Box | None) -> Pixels:
        return self._isolated(query_pixels, data, "the photo", self.finder.max_side, box, self.finder.reading)

    def _isolated(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in the decoder; its failures become HTTPExceptions."""
        try:
            return self._decoder(work, *args, **kwargs)
        except (TimeoutError, MemoryError) as error:
            what = "too long" if isinstance(error, TimeoutError) else "too much memory"
            raise HTTPException(
                413, f"the photo takes {what} to decode: reduce its size, or save it as a plain JPEG"
            ) from None
        except BrokenProcessPool:
            raise HTTPException(400, "the photo cannot be read: its decoder crashed") from None
        except Full:
            raise HTTPException(
                503, "too many slow photos are being decoded: try again in a moment", {"Retry-After": "5"}
            ) from None

    def _embed(self, pixels: Pixels) -> Descriptors:
        """The descriptor, (1, dim), of a photo's pixels, (H, W, 3)."""
        descriptor = self.finder.loaded.describe([pixels])
        if not np.isfinite(descriptor).all():
            raise UserError("the network returned a descriptor that is not finite for this photo")
        return descriptor

    def _packed_features(self, pixels: Pixels) -> bytes | None:
        """Local features of a photo's pixels, (H, W, 3), if the library stores them."""
        # Checked here already, so as not to queue behind verifications for nothing.
        if self.finder.library.catalogue.local() is None:
            return None
        return self._verifications(lambda: self.finder.packed_features(pixels))

    @contextmanager
    def _writing(self) -> Iterator[Library]:
        with self._changes, self._write_lock, ExitStack() as stack:
            library = Library(self.finder.library.folder, self.finder.library.identity)
            stack.callback(library.close)
            try:
                stack.enter_context(library.writing())
            except LibraryLinked:
                raise HTTPException(
                    403, "part of the library is a symbolic link to another place: nothing was changed"
                ) from None
            except LibraryBusy:
                raise HTTPException(
                    503, "another process is writing to the library: try again later", {"Retry-After": "5"}
                ) from None
            yield library

"""What the routes ask of the library: each kind of work in a thread of its own, and only so many may wait for it."""

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

# Requests of a kind that are worked on or wait.
SEARCHES, VERIFICATIONS, PICTURES, EXPORTS, MAPS, CHANGES = 16, 8, 32, 8, 16, 16
# Bytes that decoding may take: of itself, and for each pixel that is allowed, which some formats have in several forms.
DECODER, DECODED_PIXEL = 512_000_000, 24
# Pixels of the longer side, and thumbnails that are kept in memory, of about 20 KB each.
THUMBNAIL_SIDE, SCREEN_SIDE = 360, 1600
CACHED_THUMBNAILS = 1000
# Maps, by column, that are kept in memory, of 18 bytes a photo.
CACHED_MAPS = 8


def build_decoder(settings: Settings) -> IsolatedExecutor:
    """Where what clients send is decoded."""
    limits = settings.limits
    memory = DECODER + DECODED_PIXEL * settings.max_pixels
    return IsolatedExecutor(memory, limits.quick, limits.decoding, preload=("cv2",))


@dataclass(frozen=True)
class SearchQuery:
    """What is searched for: bytes that a client sent, or a photo of the library; a box of it, in pixels.

    Attributes:
        data: the bytes.
        like: the photo, which is not among its answers; its box is one of the photo as it was described.
        box: x1, y1, x2, y2; None for the whole.
    """

    data: bytes | None = None
    like: Photo | None = None
    box: Box | None = None

    @property
    def numbers(self) -> list[int]:
        """The number of the photo of the library, if it is one."""
        return [] if self.like is None or self.like.id is None else [self.like.id]


class SerialExecutor:
    """Runs one call after another in a thread of its own, while others wait: `places` of them, half of one client's.

    The network always runs in one thread: every thread that it ran in would keep threads and memory of its own.
    """

    def __init__(self, what: str, places: int) -> None:
        self._limiter = FairLimiter(what, places)
        self._thread = ThreadPoolExecutor(1, what)

    def __call__(self, work: Callable[[], T]) -> T:
        """What `work` returns. Raises what that raises, and HTTPException 503 where too many wait."""
        with self._limiter:
            return self._thread.submit(copy_context().run, work).result()


class SearchService:
    """A library that is served.

    A photo is embedded and compared while nobody else's is, so that memory does not grow with the number of clients;
    what takes longer, such as comparing local features, has a thread of its own, for which plain searches do not wait.
    What clients send is decoded in `decoder`'s processes. Changes go by a connection of their own: searches see a
    change whole or not at all.

    Methods raise UserError for what a client must mend, and HTTPException: 403 for changes that the settings do not
    allow, 404 for a number that no photo has, 410 for a photo whose file is gone or another, 413 for too many pixels,
    or what takes too long or too much memory to decode, 503 where too many wait, and 507 for a full disk.
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
        # Of one version of the library.
        self._places = lru_cache(1)(lambda version: finder.library.catalogue.places())
        self._write_lock = threading.Lock()
        # Size and time of change are part of the key: another file under the same name is another thumbnail.
        self._thumbnail = lru_cache(CACHED_THUMBNAILS)(
            lambda *photo: photo_files.photo_jpeg(Photo(*photo), THUMBNAIL_SIDE)
        )
        # Whatever its state is, a map is that of the library now.
        self._map = lru_cache(CACHED_MAPS)(lambda state, column: encode_map(finder.library, column))

    def query(self, data: bytes | None, number: int | None, box: Box | None) -> SearchQuery:
        """What is searched for: bytes, or a photo of the library by its number, one of them; a box of it."""
        if (data is None) == (number is None):
            raise HTTPException(422, "photo: send one, or as `like` the number of one of the library, not both")
        return SearchQuery(data, None if number is None else self.photo(number), box)

    def search(
        self, query: SearchQuery, count: int, filters: Columns, folder: str, verify: bool, exact: bool
    ) -> tuple[Descriptors, list[Answer]]:
        """The query's descriptor, (dim,), and the best answers to it; a whole photo of the library has one."""
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
        """The best answers to a query's descriptor, (dim,), moved by marks, see `search_with_feedback`."""
        library, path = self.finder.library, self.folders.path(folder)
        return self._searches(
            lambda: search_with_feedback(library, query, right, wrong, count, filters, exact, path, without)
        )

    def explain(self, query: SearchQuery, number: int, stacked: bool) -> Explanation:
        """Why a photo is found for a query, see `library.explain.explain`."""
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
        """How many photos pass, and so many of them by their names, after `offset` of them."""
        library, path = self.finder.library, self.folders.path(folder)
        library.check_filters(filters)
        total = library.catalogue.count(filters, path) if filters or path else len(library)
        return total, library.catalogue.page(offset, limit, filters, path)

    def header(self, data: bytes) -> Header:
        """What an encoded photo says of itself, see `check_header`."""
        return check_header(data, self.settings.max_pixels, partial(self._isolated, read_header))

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
        return self._pictures(lambda: photo_files.photo_jpeg(photo, SCREEN_SIDE))

    def places(self) -> list[tuple[int, float, float]]:
        """Where photos were taken, see `Catalogue.places`."""
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
            raise UserError(f"the photo is not added: {error}") from None
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

    @property
    def read_only(self) -> bool:
        """Whether photos are neither added nor removed: asked for, or its user may not write there."""
        return self.settings.read_only or not self._may_write()

    def _may_write(self) -> bool:
        folder = self.finder.library.folder
        return all(os.access(path, os.W_OK) for path in (folder, folder / FILE))

    def _check_writable(self) -> None:
        if self.settings.read_only:
            raise HTTPException(403, "this server only searches (--read-only)")
        if not self._may_write():
            raise HTTPException(403, "this server only searches: its user may not write to the library")

    def _pixels(self, query: SearchQuery) -> Pixels:
        """A query's pixels, (H, W, 3), inside its box, shrunk."""
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
        """The descriptor, (dim,), that the library has of the photo that is searched for."""
        for _, descriptor in stored_descriptors(self.finder.library, query.numbers).values():
            return descriptor
        raise HTTPException(404, "the library has no descriptor of this photo")

    def _decode(self, data: bytes, box: Box | None) -> Pixels:
        return self._isolated(query_pixels, data, "the photo", self.finder.max_side, box, self.finder.reading)

    def _isolated(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the decoder says, its failures as HTTPException."""
        try:
            return self._decoder(work, *args, **kwargs)
        except (TimeoutError, MemoryError) as error:
            what = "too long" if isinstance(error, TimeoutError) else "too much memory"
            raise HTTPException(
                413, f"the photo takes {what} to decode: make it smaller, or save it as an ordinary JPEG"
            ) from None
        except BrokenProcessPool:
            raise HTTPException(400, "the photo cannot be read: its decoder broke off") from None
        except Full:
            raise HTTPException(
                503, "too many photos that take long to decode at once: try again in a moment", {"Retry-After": "5"}
            ) from None

    def _embed(self, pixels: Pixels) -> Descriptors:
        """The descriptor, (1, dim), of a photo's pixels, (H, W, 3)."""
        descriptor = self.finder.loaded.describe([pixels])
        if not np.isfinite(descriptor).all():
            raise UserError("the network gives this photo no finite descriptor")
        return descriptor

    def _packed_features(self, pixels: Pixels) -> bytes | None:
        """Local features of a photo's pixels, (H, W, 3), where the library keeps some of photos."""
        if self.finder.library.catalogue.local() is None:
            # Nobody waits for the verifications of others.
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
                    403, "a part of the library is a link that leads elsewhere: nothing is changed"
                ) from None
            except LibraryBusy:
                raise HTTPException(
                    503, "another process writes to the library: try again when it has ended", {"Retry-After": "5"}
                ) from None
            yield library

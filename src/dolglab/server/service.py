"""What the routes ask of the library, in turn: one search at a time, one change at a time, and only so many wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.library.catalogue import Photo
from dolglab.library.explain import Explanation
from dolglab.library.library import Answer, Library, LibraryBusy
from dolglab.library.photos import Box, query_pixels
from dolglab.library.relevance_feedback import search_with_feedback
from dolglab.library.search_engine import SearchEngine
from dolglab.server.photo_files import (
    Pictures,
    add_photo,
    check_unchanged,
    find_photo,
    gone,
    marks_zip,
    remove_photo,
    safe_name,
)
from dolglab.server.security import Places, Settings, Worker, check_header

WAITING_SEARCHES, WAITING_CHANGES = 8, 4

Pixels = NDArray[np.uint8]


class Desk:
    """A library that is served.

    A photo is decoded, described and compared while nobody else's is, so that memory does not grow with the number of
    clients. Changes go by a connection of their own: searches see a change whole or not at all.
    """

    def __init__(self, finder: SearchEngine, settings: Settings) -> None:
        self.finder = finder
        self.settings = settings
        self.pictures = Pictures()
        self._searches = Worker("searches", WAITING_SEARCHES)
        self._changes = Places("changes", WAITING_CHANGES + 1)
        self._writer = Lock()
        self._exports = Worker("exports", WAITING_CHANGES)

    @property
    def folder(self) -> Path:
        """The library's."""
        return self.finder.library.folder

    def search(
        self, data: bytes, box: Box | None, count: int, filters: Mapping[str, str], verify: bool
    ) -> tuple[NDArray[np.float32], list[Answer]]:
        """The query's descriptor, (dim,), and its answers. Raises UserError and HTTPException."""
        check_header(data, self.settings.max_pixels)

        def work() -> tuple[NDArray[np.float32], list[Answer]]:
            pixels, descriptor = self._described(data, box)
            answers = self.finder.search_descriptors(descriptor, [pixels], count, filters, verify)
            return descriptor[0], answers[0]

        return self._searches(work)

    def rerank(
        self,
        query: NDArray[np.float32],
        right: Sequence[int],
        wrong: Sequence[int],
        count: int,
        filters: Mapping[str, str],
    ) -> list[Answer]:
        """See `search_with_feedback`."""
        return self._searches(lambda: search_with_feedback(self.finder.library, query, right, wrong, count, filters))

    def explain(self, data: bytes, box: Box | None, number: int) -> Explanation:
        """Why a photo is found for a query. Raises UserError and HTTPException."""
        check_header(data, self.settings.max_pixels)
        photo = self.photo(number)
        check_unchanged(photo)

        def work() -> Explanation:
            pixels = query_pixels(data, "the photo", self.finder.max_side, box)
            try:
                return self.finder.explain(pixels, Answer(photo, 0.0))
            except UserError:
                raise gone() from None

        return self._searches(work)

    def photo(self, number: int) -> Photo:
        """The photo of that number. Raises HTTPException 404 where there is none."""
        return find_photo(self.finder.library, number)

    def add(self, data: bytes, name: str, metadata: Mapping[str, str]) -> Photo:
        """Keep and describe a photo. Raises UserError and HTTPException."""
        self._check_writable()
        header = check_header(data, self.settings.max_pixels)
        pixels, descriptor = self._searches(lambda: self._described(data, None))
        with self._writing() as library:
            return add_photo(
                library, data, safe_name(name, header.suffix), (pixels.shape[0], pixels.shape[1]), descriptor, metadata
            )

    def remove(self, number: int) -> bool:
        """Take a photo out; whether its file was deleted too. Raises HTTPException."""
        self._check_writable()
        with self._writing() as library:
            return remove_photo(library, number)

    def export(
        self, name: str, query: tuple[str, bytes] | None, right: Sequence[int], wrong: Sequence[int]
    ) -> IO[bytes]:
        """See `marks_zip`. Raises HTTPException."""
        photos = [[self.photo(number) for number in numbers] for numbers in (right, wrong)]
        return self._exports(lambda: marks_zip(name, query, *photos))

    def _check_writable(self) -> None:
        if self.settings.read_only:
            raise HTTPException(403, "this server only searches (--read-only)")

    def _described(self, data: bytes, box: Box | None) -> tuple[Pixels, NDArray[np.float32]]:
        pixels = query_pixels(data, "the photo", self.finder.max_side, box)
        descriptor = self.finder.describe([pixels])
        if not np.isfinite(descriptor).all():
            raise UserError("the network gives this photo no finite descriptor")
        return pixels, descriptor

    @contextmanager
    def _writing(self) -> Iterator[Library]:
        with self._changes, self._writer, ExitStack() as stack:
            library = Library(self.folder, self.finder.library.identity)
            stack.callback(library.close)
            try:
                stack.enter_context(library.writing())
            except LibraryBusy:
                raise HTTPException(
                    503, "another process writes to the library: try again when it has ended", {"Retry-After": "5"}
                ) from None
            yield library

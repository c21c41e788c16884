"""Photos into a library: read by several threads, described by shape, kept every few hundred."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.data.images import BrokenImageError, reason
from src.data.scans import decode_shrunk
from src.extraction.buckets import Group
from src.library.contents import Photo
from src.library.library import Library
from src.library.model import Ready
from src.library.photos import File
from src.library.workers import Workers

# Photos between two moments at which what was done is kept, and seconds at most.
KEEP_EVERY, KEEP_SECONDS = 512, 60.0
# Photos that each thread reads ahead.
AHEAD = 8


@dataclass
class Outcome:
    """What an embedding came to: how many photos were described, and how many could not be read."""

    added: int = 0
    bad: int = 0


class Unread(NamedTuple):
    """Why a file was not read, and whether that may pass; an older descriptor of its stays then."""

    reason: str
    passing: bool = False


def embed(
    library: Library,
    ready: Ready,
    files: Iterable[File],
    threads: int = 2,
    progress: Callable[[File, str | None], None] = lambda file, reason: None,
) -> Outcome:
    """Describe files and keep them in the library.

    What was described is kept now and then, so that a process that is stopped goes on from there.

    Args:
        progress: told of each file that was read, and why it could not be.
    """
    outcome = Outcome()
    waiting = _Waiting(library, outcome)
    buckets = ready.extractor.buckets()
    workers = Workers(ready)
    shrunk = ready.identity["max_side"]
    try:
        for place, (file, pixels) in enumerate(read(files, shrunk, threads)):
            if isinstance(pixels, Unread):
                progress(file, pixels.reason)
                waiting.bad(file, pixels)
                continue
            progress(file, None)
            waiting.files[place] = file
            for group in buckets.add(place, torch.from_numpy(pixels)):
                for done in workers.take(group):
                    waiting.add(*done)
        for group in buckets.rest():
            for done in workers.take(group):
                waiting.add(*done)
        for done in workers.rest():
            waiting.add(*done)
    finally:
        workers.close()
        waiting.keep()
    return outcome


def read(files: Iterable[File], max_side: int, threads: int) -> Iterator[tuple[File, NDArray[np.uint8] | Unread]]:
    """Pixels of each file, (H, W, 3), in their order, or why it cannot be read."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        ahead: deque[tuple[File, Future[NDArray[np.uint8] | Unread]]] = deque()
        try:
            for file in files:
                ahead.append((file, pool.submit(_read, file, max_side)))
                if len(ahead) > AHEAD * max(1, threads):
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        finally:
            for _, future in ahead:
                future.cancel()


def _read(file: File, max_side: int) -> NDArray[np.uint8] | Unread:
    try:
        return decode_shrunk(file.read(), max_side)
    except (BrokenImageError, OSError) as error:
        # A disk that was not there, a reader that was not installed: another time it may be read.
        passing = isinstance(error, OSError) or isinstance(error.__cause__, ImportError)
        return Unread(reason(error), passing)


class _Waiting:
    """Photos that are read, and not yet kept."""

    def __init__(self, library: Library, outcome: Outcome) -> None:
        self.library = library
        self.outcome = outcome
        self.files: dict[int, File] = {}
        self.photos: list[Photo] = []
        self.descriptors: list[NDArray[np.float32]] = []
        self.broken: list[Photo] = []
        self.since = time.monotonic()

    def add(self, group: Group, descriptors: Tensor) -> None:
        for (place, image), descriptor in zip(group, descriptors.float().cpu().numpy(), strict=True):
            file = self.files.pop(place)
            if not np.isfinite(descriptor).all():
                self.bad(file, Unread("the network gave no finite descriptor"))
                continue
            self.photos.append(_photo(file, shape=(int(image.shape[0]), int(image.shape[1]))))
            self.descriptors.append(descriptor)
        self._perhaps()

    def bad(self, file: File, why: Unread) -> None:
        self.outcome.bad += 1
        known = self.library.catalogue.named(file.name) if why.passing else None
        if known is None or known[1] is None:
            # No file has that size: it is tried again.
            photo = _photo(file, reason=why.reason)
            self.broken.append(replace(photo, size=-1) if why.passing else photo)
        self._perhaps()

    def keep(self) -> None:
        if self.photos:
            self.library.add(self.photos, np.stack(self.descriptors))
        if self.broken:
            self.library.note_bad(self.broken)
        self.outcome.added += len(self.photos)
        self.photos, self.descriptors, self.broken, self.since = [], [], [], time.monotonic()

    def _perhaps(self) -> None:
        if len(self.photos) + len(self.broken) >= KEEP_EVERY or time.monotonic() - self.since > KEEP_SECONDS:
            self.keep()


def _photo(file: File, shape: tuple[int, int] | None = None, reason: str | None = None) -> Photo:
    return Photo(file.name, file.size, file.changed, shape, reason)

"""Photos into a library: read by several threads, described by shape, kept every few hundred."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from src.data.images import BrokenImageError, reason
from src.data.scans import decode_shrunk
from src.extraction.buckets import Group
from src.library.ahead import ahead
from src.library.contents import Photo
from src.library.library import Library
from src.library.memory import give_back
from src.library.model import Ready
from src.library.photos import File

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
        progress: told of each file that is done, and why it could not be read.
    """
    outcome = Outcome()
    waiting = _Waiting(library, outcome)

    def unread(file: File, why: Unread) -> None:
        progress(file, why.reason)
        waiting.bad(file, why)

    try:
        for file, shape, descriptor in described(ready, files, threads, unread):
            progress(file, None)
            waiting.add(file, shape, descriptor)
    finally:
        waiting.keep()
    return outcome


def described(
    ready: Ready, files: Iterable[File], threads: int, unread: Callable[[File, Unread], None]
) -> Iterator[tuple[File, tuple[int, int], NDArray[np.float32]]]:
    """Each file with its height and width as described and its descriptor, (dim,), about in their order.

    Args:
        threads: that read and decode.
        unread: told of each file that could not be read.
    """
    places: dict[int, File] = {}
    side_by_side = ready.extractor.side_by_side
    # On a CPU, photos side by side in a thread each are faster than all threads for one after another.
    begin = partial(torch.set_num_threads, max(1, torch.get_num_threads() // side_by_side))
    groups = _groups(ready, files, threads, unread, places)
    for group, descriptors in ahead(partial(_describe, ready), groups, side_by_side, side_by_side + 1, begin):
        for (place, image), descriptor in zip(group, descriptors, strict=True):
            yield places.pop(place), (int(image.shape[0]), int(image.shape[1])), descriptor


def _describe(ready: Ready, group: Group) -> NDArray[np.float32]:
    with torch.inference_mode():
        return ready.extractor.together([image for _, image in group]).float().cpu().numpy()


def _groups(
    ready: Ready,
    files: Iterable[File],
    threads: int,
    unread: Callable[[File, Unread], None],
    places: dict[int, File],
) -> Iterator[Group]:
    """Photos that go through the network together; `places` says whose the keys of a group are."""
    buckets = ready.extractor.buckets()
    read = partial(_read, max_side=ready.identity["max_side"])
    for place, (file, pixels) in enumerate(ahead(read, files, threads, AHEAD * threads)):
        if isinstance(pixels, Unread):
            unread(file, pixels)
        else:
            places[place] = file
            yield from buckets.add(place, torch.from_numpy(pixels))
    yield from buckets.rest()


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
        self.photos: list[Photo] = []
        self.descriptors: list[NDArray[np.float32]] = []
        self.broken: list[Photo] = []
        self.since = time.monotonic()

    def add(self, file: File, shape: tuple[int, int], descriptor: NDArray[np.float32]) -> None:
        if not np.isfinite(descriptor).all():
            self.bad(file, Unread("the network gave no finite descriptor"))
            return
        self.photos.append(_photo(file, shape=shape))
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
        give_back()

    def _perhaps(self) -> None:
        if len(self.photos) + len(self.broken) >= KEEP_EVERY or time.monotonic() - self.since > KEEP_SECONDS:
            self.keep()


def _photo(file: File, shape: tuple[int, int] | None = None, reason: str | None = None) -> Photo:
    return Photo(file.name, file.size, file.changed, shape, reason)

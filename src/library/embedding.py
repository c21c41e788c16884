"""Photos into a library: read by several threads, described by shape, kept every few hundred."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.data.images import BrokenImageError, decode, reason, shrink
from src.extraction.buckets import Group
from src.library.contents import Photo
from src.library.library import Library
from src.library.model import Ready
from src.library.photos import File

# Photos between two moments at which what was done is kept, and seconds at most.
KEEP_EVERY, KEEP_SECONDS = 512, 60.0
# Photos that each thread reads ahead.
AHEAD = 8


@dataclass
class Outcome:
    """What an embedding came to: photos described anew, left as they were, and those that could not be read."""

    added: int = 0
    known: int = 0
    bad: list[Photo] = field(default_factory=list)


def changed_files(library: Library, files: Sequence[File]) -> list[File]:
    """The files that the library does not know, or not as they are now."""
    known = library.catalogue.known()
    return [file for file in files if known.get(file.name) != (file.size, file.changed)]


def embed(
    library: Library,
    ready: Ready,
    files: Sequence[File],
    threads: int = 2,
    progress: Callable[[int], None] = lambda count: None,
) -> Outcome:
    """Describe the files that are new or changed and keep them in the library.

    What was described is kept now and then, so that a process that is stopped goes on from there.

    Args:
        progress: told how many files more are done.
    """
    todo = changed_files(library, files)
    outcome = Outcome(known=len(files) - len(todo))
    waiting = _Waiting(library, outcome)
    buckets = ready.extractor.buckets()
    shrunk = ready.identity["max_side"]
    try:
        for place, (file, pixels) in enumerate(read(todo, shrunk, threads)):
            progress(1)
            if isinstance(pixels, str):
                waiting.bad(file, pixels)
                continue
            for group in buckets.add(place, torch.from_numpy(pixels)):
                waiting.add(todo, group, described(ready, group))
        for group in buckets.rest():
            waiting.add(todo, group, described(ready, group))
    finally:
        waiting.keep()
    return outcome


def read(files: Iterable[File], max_side: int, threads: int) -> Iterator[tuple[File, NDArray[np.uint8] | str]]:
    """Pixels of each file, (H, W, 3), in their order, or why it cannot be read."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        ahead: deque[tuple[File, Future[NDArray[np.uint8] | str]]] = deque()
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


def described(ready: Ready, group: Group) -> Tensor:
    """Descriptors of images of one shape, (n, dim)."""
    with torch.inference_mode():
        return ready.extractor.together([image for _, image in group])


def _read(file: File, max_side: int) -> NDArray[np.uint8] | str:
    try:
        return shrink(decode(file.read()), max_side)
    except (BrokenImageError, OSError) as error:
        return reason(error)


class _Waiting:
    """Photos that are described, and not yet kept."""

    def __init__(self, library: Library, outcome: Outcome) -> None:
        self.library = library
        self.outcome = outcome
        self.photos: list[Photo] = []
        self.descriptors: list[NDArray[np.float32]] = []
        self.broken: list[Photo] = []
        self.since = time.monotonic()

    def add(self, files: Sequence[File], group: Group, descriptors: Tensor) -> None:
        for (place, image), descriptor in zip(group, descriptors.float().cpu().numpy(), strict=True):
            if not np.isfinite(descriptor).all():
                self.bad(files[place], "the network gave no finite descriptor")
                continue
            self.photos.append(_photo(files[place], shape=(int(image.shape[0]), int(image.shape[1]))))
            self.descriptors.append(descriptor)
        self._perhaps()

    def bad(self, file: File, why: str) -> None:
        self.broken.append(_photo(file, reason=why))
        self._perhaps()

    def keep(self) -> None:
        if self.photos:
            self.library.add(self.photos, np.stack(self.descriptors))
        if self.broken:
            self.library.note_bad(self.broken)
        self.outcome.added += len(self.photos)
        self.outcome.bad += self.broken
        self.photos, self.descriptors, self.broken, self.since = [], [], [], time.monotonic()

    def _perhaps(self) -> None:
        if len(self.photos) + len(self.broken) >= KEEP_EVERY or time.monotonic() - self.since > KEEP_SECONDS:
            self.keep()


def _photo(file: File, shape: tuple[int, int] | None = None, reason: str | None = None) -> Photo:
    return Photo(file.name, file.size, file.changed, shape, reason)

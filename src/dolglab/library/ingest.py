"""The command that embeds: what it prints, and in which order it does things."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from dolglab.concurrency import ahead
from dolglab.data.image_formats import BrokenImageError, reason
from dolglab.data.image_reading import decode_shrunk
from dolglab.errors import UserError, pluralize
from dolglab.extraction.extract import Group
from dolglab.library.catalogue import FILE, Catalogue, Photo
from dolglab.library.library import Library
from dolglab.library.photos import File, Listing, read_metadata
from dolglab.library.query import Ready, ready_model


def give_back() -> None:
    """Give the system what the C library holds of freed memory, where it is glibc; elsewhere nothing is done.

    Batches of ever other shapes leave holes in its heaps, and a process that runs for days would grow.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


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


# Photos that a plan describes to know how long one takes.
TRIED = 16
# Kinds of other files that are named.
KINDS = 6


@dataclass(frozen=True)
class Request:
    """What a person asked for: see `dolglab embed`."""

    places: Sequence[str]
    library: str
    model: str | None
    scales: str
    max_side: int
    metadata: str | None
    threads: int
    shard: str | None = None
    store: str | None = None
    backend: str = "torch"
    listed: str | None = None


def embed_places(asked: Request, plan: bool = False) -> None:
    """Find, describe and keep; with `plan` only say what that would take. Raises UserError for a person's mistake."""
    if not asked.places and asked.listed is None:
        raise UserError("which photos? name folders, files or a prefix, or a list of them with --list")
    with closing(Listing(asked.places, asked.shard, asked.listed)) as files:
        for error in files.unreadable:
            print(f"left out: {error.filename!r}: {reason(error)}")
        if files.others:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in files.others.most_common(KINDS))
            print(f"left out: {pluralize(files.others.total(), 'file')} of another kind ({kinds})")
        strangers = sum(name is None for name, _ in _rows(asked, files))
        if strangers:
            print(f"{asked.metadata}: {pluralize(strangers, 'row')} for no photo here")
        ready = ready_model(_source(asked), _numbers(asked.scales), asked.max_side, asked.backend)
        print(f"model: {ready.title}")
        if plan:
            _tell_plan(asked, ready, files)
        else:
            _embed(asked, ready, files)


def _embed(asked: Request, ready: Ready, files: Listing) -> None:
    library = Library.open(asked.library, ready.identity, asked.store)
    with closing(library), library.writing():
        if lost := library.forget_damaged():
            print(f"the descriptors of {pluralize(lost, 'photo')} are damaged or gone, and are made anew")
        if asked.store is not None:
            library.use_index(asked.store)
        files.compare(library.folder)
        todo = files.changed_count()
        with progress_bar(todo) as told:
            outcome = embed(library, ready, files.changed(), asked.threads, told)
        with library.catalogue.change() as change:
            for name, columns in _rows(asked, files):
                if name is not None:
                    change.describe(name, columns)
        left = f", {outcome.bad} could not be read" if outcome.bad else ""
        done = f"{pluralize(outcome.added, 'photo')} described, {len(files) - todo} already there{left}"
        print(f"{done}: {len(library)} in {asked.library}")


def _rows(asked: Request, files: Listing) -> Iterator[tuple[str | None, dict[str, str]]]:
    return iter(()) if asked.metadata is None else read_metadata(asked.metadata, files.ending)


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[File, str | None], None]]:
    """A bar in the terminal, and what moves it; photos that cannot be read are listed above it."""
    with Progress(console=Console(stderr=True), disable=not total) as bar:
        task = bar.add_task("describing", total=total)

        def told(file: File, reason: str | None) -> None:
            bar.advance(task)
            if reason is not None:
                print(f"left out: {file.name!r}: {reason}")

        yield told


def _source(asked: Request) -> str | None:
    """What was asked for; of a library that is there, what made it."""
    if asked.model is None and (Path(asked.library) / FILE).exists():
        catalogue = Catalogue(Path(asked.library))
        source: str | None = catalogue.about("identity").get("source")
        catalogue.close()
        return source
    return asked.model


def _tell_plan(asked: Request, ready: Ready, files: Listing) -> None:
    if (Path(asked.library) / FILE).exists():
        Library(asked.library, ready.identity).close()
    files.compare(Path(asked.library))
    todo = files.changed_count()
    sample = list(islice(files.changed(every=max(1, todo // TRIED)), TRIED))
    start = time.perf_counter()
    for _ in described(ready, sample, asked.threads, lambda file, why: None):
        pass
    seconds = (time.perf_counter() - start) / max(1, len(sample)) * todo
    size = todo * (4 * ready.identity["dim"] + 300)
    print(
        f"{pluralize(len(files), 'photo')} ({files.bytes / 1e9:.2f} GB), {todo} of them to be described: "
        f"about {seconds / 60:.1f} minutes here, by {len(sample)} that were tried, and {size / 1e6:.1f} MB in "
        f"{asked.library}"
    )


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--scales wants numbers with commas between them, such as 0.7071,1, not {text}") from None

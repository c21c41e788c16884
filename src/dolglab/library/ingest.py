"""Photos described by a network and kept in a library: what `dolglab embed` does."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from dolglab.concurrency import prefetch_map
from dolglab.contracts import Colour, Decoding
from dolglab.data.colour import Pixels
from dolglab.data.image_errors import BrokenImageError, MissingReaderError, TooLargeError, reason
from dolglab.data.image_formats import read_header
from dolglab.data.image_reading import Reading, decode_shrunk
from dolglab.data.photos import MIN_SIDE, PhotoFile, check_size, digest_of
from dolglab.data.sources import RAW_SUFFIXES
from dolglab.data.tiff import is_tiff, open_tiff
from dolglab.errors import UserError, pluralize, truncate_list
from dolglab.library.catalogue import FILE, Catalogue
from dolglab.library.contents import Photo
from dolglab.library.library import CHANGEABLE, Library, model_source
from dolglab.library.listing import Listing
from dolglab.sharing.loading import LoadedExtractor, load_extractor

# Photos, and seconds at most, between two moments at which what was done is kept.
COMMIT_PHOTOS, COMMIT_SECONDS = 512, 60.0
# Photos that each thread reads ahead.
READ_AHEAD = 8
# Photos that a plan describes to know how long one takes, and seconds after which it describes no more.
PLAN_SAMPLE, PLAN_SECONDS = 16, 10.0
# How a new library's photos are described where nobody says otherwise; no side is the model's own.
HOW: dict[str, Any] = {"scales": (1.0,), "max_side": None, "colour": "srgb", "decoding": "scaled"}
# Kinds of left out files, and rows of a table for no photo, that are named.
NAMED_KINDS, NAMED_ROWS = 6, 20
# The size of a photo that is to be tried again: no file has it.
UNKNOWN_SIZE = -1
# Bytes of a photo in a library beside its descriptor, about.
PHOTO_BYTES = 300


def embed_places(
    places: Sequence[str],
    library: str,
    *,
    listed: str | None = None,
    model: str | None = None,
    scales: Sequence[float] | None = None,
    max_side: int | None = None,
    colour: Colour | None = None,
    decoding: Decoding | None = None,
    metadata: str | None = None,
    threads: int = 2,
    shard: str | None = None,
    store: str | None = None,
    backend: str = "auto",
    exclude: Sequence[str] = (),
    again: bool = False,
    plan: bool = False,
    damaged: bool = False,
) -> None:
    """Find photos, describe those that are new or changed, keep them in a library, and print what was done.

    The arguments are the options of `dolglab embed --help`; without `model`, `scales`, `max_side`, `colour` and
    `decoding` they are the library's, or a new one's `HOW`. With `plan` it only prints what there is to do. Raises
    UserError for a person's mistake.
    """
    folder = Path(library)
    everything = again and not places and listed is None and (folder / FILE).exists()
    if not places and listed is None and not everything:
        raise UserError("which photos? name folders, files or a prefix, or a list of them with --list")
    with closing(Listing(places, shard, listed, exclude, folder if everything else None)) as files:
        _print_left_out(files)
        if metadata is not None:
            count, strangers = files.join(metadata, NAMED_ROWS)
            if count:
                named = ", ".join(map(repr, strangers)) + (", ..." if count > NAMED_ROWS else "")
                print(f"{metadata}: {pluralize(count, 'row')} for no photo here: {named}")
        made = HOW
        if (folder / FILE).exists():
            with closing(Catalogue(folder)) as catalogue:
                made = catalogue.identity()
        source = model or (model_source(made) if "source" in made else None)
        loaded = load_extractor(
            source,
            scales or made["scales"],
            max_side or made["max_side"],
            backend,
            colour or made["colour"],
            decoding or made["decoding"],
            threads=1,
        )
        print(f"model: {loaded.identity['title']}; photos of at most {loaded.identity['max_side']} pixels")
        # What describes everything anew may change how that is done.
        before = loaded.identity | ({key: made[key] for key in CHANGEABLE} if everything else {})
        if plan:
            if (folder / FILE).exists():
                Library(folder, before).close()
            _print_plan(library, loaded, files, threads, again, damaged)
            return
        opened = Library.open(library, before, store)
        with closing(opened), opened.writing():
            if lost := opened.forget_damaged():
                print(f"the descriptors of {pluralize(lost, 'photo')} are damaged or gone, and are made anew")
            if store is not None:
                opened.use_index(store)
            files.compare(opened.folder, again, damaged)
            _note_files(opened, files)
            if again:
                opened.describe_anew((file.name for file in files.changed()), loaded.identity)
            todo = files.changed_count()
            with Progress(console=Console(stderr=True), disable=not todo) as bar:
                task = bar.add_task("describing", total=todo)

                def advance(name: str, why: str | None) -> None:
                    bar.advance(task)
                    if why is not None:
                        # Above the bar.
                        print(f"left out: {name!r}: {why}")

                outcome = embed(opened, loaded, files.changed(), threads, damaged, advance)
            with opened.catalogue.change() as change:
                for name, columns in files.metadata():
                    change.set_metadata(name, columns)
            there = len(files) - todo + outcome.unchanged
            if outcome.further:
                pages = f"{pluralize(sum(outcome.further.values()), 'further page')} of {len(outcome.further)}"
                print(f"left out: {pages}, whose first is described, such as {next(iter(outcome.further))!r}")
            left = f", {outcome.bad} could not be read" if outcome.bad else ""
            done = f"{pluralize(outcome.added, 'photo')} described, {there} already there{left}"
            print(f"{done}: {len(opened)} in {library}")


def _print_left_out(files: Listing) -> None:
    for error in files.unreadable:
        print(f"left out: {error.filename!r}: {reason(error)}")
    if files.others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in files.others.most_common(NAMED_KINDS))
        print(f"left out: {pluralize(files.others.total(), 'file')} of another kind ({kinds})")
        if RAW_SUFFIXES & files.others.keys():
            print("raw photographs are not read: develop them to TIFF or JPEG")
    if files.links:
        named = truncate_list([repr(link) for link in files.links])
        print(f"left out: {pluralize(len(files.links), 'link')} out of the folder, {named}: name what is meant too")


def _note_files(library: Library, files: Listing) -> None:
    """Keep what is known of the files beside their photos; say which were met twice."""
    for name, photo in files.twins(1):
        count = pluralize(files.twin_count(), "path")
        print(f"left out: {count} to files that are there by another one, such as {name!r}, which is {photo!r}")
    with library.change() as change:
        # A library of an earlier version knows no such times: its photos are not described anew for that.
        change.set_ctimes(files.first_ctimes())
        change.add_mounts(files.mounts())


def _print_plan(
    library: str, loaded: LoadedExtractor, files: Listing, threads: int, again: bool, damaged: bool
) -> None:
    files.compare(Path(library), again, damaged)
    todo = files.changed_count()
    sample = list(islice(files.changed(every=max(1, todo // PLAN_SAMPLE)), PLAN_SAMPLE))
    each, tried = _seconds_a_photo(loaded, sample, threads, damaged)
    minutes = each * todo / 60
    takes = f"{minutes:.1f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
    size = todo * (4 * loaded.identity["dim"] + PHOTO_BYTES)
    doubtful = files.doubtful_count()
    whether = f" ({doubtful} only if their bytes have changed)" if doubtful else ""
    print(
        f"{pluralize(len(files), 'photo')} ({files.bytes / 1e9:.2f} GB), {todo} of them to be described{whether}: "
        f"about {takes} here, {each:.2f} s a photo by {tried} that {'was' if tried == 1 else 'were'} tried, and "
        f"{size / 1e6:.1f} MB in {library}"
    )


def _seconds_a_photo(
    loaded: LoadedExtractor, sample: Sequence[PhotoFile], threads: int, damaged: bool
) -> tuple[float, int]:
    """Seconds that one of many photos takes here, and by how many that is known.

    The first ones, one for each worker, say how many more there is time for, and count where that is none: they warm
    up what the others use.
    """

    def timed(files: Sequence[PhotoFile]) -> float:
        start = time.perf_counter()
        for _ in describe_files(loaded, files, threads, damaged):
            pass
        return time.perf_counter() - start

    workers = loaded.describer.workers
    first, others = sample[:workers], sample[workers:]
    if not first:
        return 0.0, 0
    seconds = timed(first)
    if more := others[: int(PLAN_SECONDS / seconds) * len(first)]:
        return timed(more) / len(more), len(more)
    return seconds / len(first), len(first)


def embed(
    library: Library,
    loaded: LoadedExtractor,
    files: Iterable[PhotoFile],
    threads: int = 2,
    damaged: bool = False,
    progress: Callable[[str, str | None], None] = lambda name, why: None,
) -> Intake:
    """Describe files and keep them in the library; gives how many it was.

    What was described is kept now and then, so that a process that is stopped goes on from there.

    Args:
        threads: that read and decode.
        damaged: damaged JPEGs are described as far as they can be read.
        progress: told the name of each file that is done, and why it could not be read.
    """
    intake = Intake(library)

    def unread(photo: Photo) -> None:
        progress(photo.name, photo.reason)
        intake.add_unread(photo)

    def unchanged(file: PhotoFile) -> None:
        progress(file.name, None)
        intake.add_unchanged(file)

    try:
        for described in describe_files(loaded, files, threads, damaged, unread, unchanged):
            progress(described.file.name, intake.add(described))
    finally:
        intake.commit()
    return intake


class Described(NamedTuple):
    """A file with its digest, its height and width as described, its descriptor, (dim,), and how many further pages."""

    file: PhotoFile
    shape: tuple[int, int]
    descriptor: NDArray[np.float32]
    further: int


class Intake:
    """Puts photos that are done into a library, many at a time.

    Attributes:
        added: how many were described.
        unchanged: how many turned out to have the bytes that were described before.
        bad: how many could not be read.
        further: by name, how many pages a file has beside the one that is described.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.added = self.unchanged = self.bad = 0
        self.photos: list[Photo] = []
        self.ctimes: list[tuple[str, int | None]] = []
        self.descriptors: list[NDArray[np.float32]] = []
        self.unread: list[Photo] = []
        self.further: dict[str, int] = {}
        self.since = time.monotonic()

    def add(self, described: Described) -> str | None:
        """Why it could not be; None where it was."""
        photo = _photo(described.file)
        if described.further:
            self.further[photo.name] = described.further
        if not np.isfinite(described.descriptor).all():
            why = "the network gave no finite descriptor"
            self.add_unread(replace(photo, reason=why))
            return why
        self.photos.append(replace(photo, shape=described.shape))
        self.descriptors.append(described.descriptor)
        self._commit_if_due()
        return None

    def add_unchanged(self, file: PhotoFile) -> None:
        self.unchanged += 1
        self.ctimes.append((file.name, file.ctime))
        self._commit_if_due()

    def add_unread(self, photo: Photo) -> None:
        self.bad += 1
        known = self.library.catalogue.named(photo.name) if photo.size == UNKNOWN_SIZE else None
        # An older descriptor stays where this may pass.
        if known is None or known[1] is None:
            self.unread.append(photo)
        self._commit_if_due()

    def commit(self) -> None:
        if self.photos:
            self.library.add(self.photos, np.stack(self.descriptors))
        if self.unread or self.ctimes:
            # An older descriptor of what could not be read is dropped.
            with self.library.change() as change:
                change.put(self.unread, [None] * len(self.unread))
                change.set_ctimes(self.ctimes)
        self.added += len(self.photos)
        self.photos, self.descriptors, self.unread, self.ctimes, self.since = [], [], [], [], time.monotonic()
        # Batches of ever other shapes leave holes in glibc's heaps, and a process that runs for days would grow.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

    def _commit_if_due(self) -> None:
        waiting = len(self.photos) + len(self.unread) + len(self.ctimes)
        if waiting >= COMMIT_PHOTOS or time.monotonic() - self.since > COMMIT_SECONDS:
            self.commit()


def describe_files(
    loaded: LoadedExtractor,
    files: Iterable[PhotoFile],
    threads: int,
    damaged: bool = False,
    unread: Callable[[Photo], None] = lambda photo: None,
    unchanged: Callable[[PhotoFile], None] = lambda file: None,
) -> Iterator[Described]:
    """Each file that can be read and is not as it was, about in their order.

    Args:
        threads: that read and decode.
        damaged: damaged JPEGs are described as far as they can be read.
        unread: told of each file that could not be read; where that may pass its size is `UNKNOWN_SIZE`.
        unchanged: told of each file whose bytes have the digest that it came with.
    """
    describer = loaded.describer
    by_place: dict[int, tuple[PhotoFile, int]] = {}

    def groups() -> Iterator[list[tuple[int, Pixels]]]:
        """Photos that go through the network together, by their places in `by_place`."""
        buckets = describer.buckets()
        reading = loaded.reading._replace(damaged=damaged)
        read = partial(_read, max_side=loaded.identity["max_side"], reading=reading)
        for place, (file, found) in enumerate(prefetch_map(read, files, threads, READ_AHEAD * threads)):
            if isinstance(found, Photo):
                unread(found)
            elif found.pixels is None:
                unchanged(file)
            else:
                by_place[place] = replace(file, digest=found.digest), found.further
                yield from buckets.add(place, found.pixels)
        yield from buckets.rest()

    def describe(group: list[tuple[int, Pixels]]) -> NDArray[np.float32]:
        return describer.together([image for _, image in group])

    workers = describer.workers
    for group, descriptors in prefetch_map(describe, groups(), workers, workers + 1, describer.share_cores):
        for (place, image), descriptor in zip(group, descriptors, strict=True):
            file, further = by_place.pop(place)
            yield Described(file, image.shape[:2], descriptor, further)


class _Decoded(NamedTuple):
    """Of a file's bytes the digest and, where it is not the one that the file came with, the pixels; further pages."""

    digest: bytes
    pixels: Pixels | None
    further: int = 0


def _read(file: PhotoFile, max_side: int, reading: Reading) -> _Decoded | Photo:
    try:
        data = file.read()
        digest = digest_of(data)
        if digest == file.digest:
            return _Decoded(digest, None)
        pixels = decode_shrunk(data, max_side, reading)
        if min(pixels.shape[:2]) < MIN_SIDE:
            # Perhaps only since it was shrunk, as a scan too large for its header to be read surely was.
            with suppress(TooLargeError):
                header = read_header(data)
                check_size(header.height, header.width)
        return _Decoded(digest, pixels, open_tiff(data).further if is_tiff(data) else 0)
    except (BrokenImageError, OSError) as error:
        # A disk that was not there, a reader that was not installed: another time it may be read.
        may_pass = isinstance(error, OSError | MissingReaderError)
        photo = replace(_photo(file), reason=reason(error), digest=None)
        return replace(photo, size=UNKNOWN_SIZE) if may_pass else photo


def _photo(file: PhotoFile) -> Photo:
    return Photo(file.name, file.size, file.changed, ctime=file.ctime, digest=file.digest)

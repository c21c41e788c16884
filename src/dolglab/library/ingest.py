"""Photos described by a network and kept in a library: what `dolglab embed` does."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Colour, Decoding, Engine
from dolglab.data.exif import LATITUDE
from dolglab.data.image_errors import reason
from dolglab.data.photos import PhotoFile
from dolglab.data.sources import RAW_SUFFIXES
from dolglab.errors import UserError, pluralize, truncate_list
from dolglab.library import ray_engine
from dolglab.library.catalogue import FILE, Catalogue
from dolglab.library.contents import Photo
from dolglab.library.library import CHANGEABLE, Library, adapter_of, model_source
from dolglab.library.listing import Listing
from dolglab.library.local_engine import UNKNOWN_SIZE, Described, describe_files, first_pixels
from dolglab.library.packing import packed_bytes
from dolglab.library.verifier import FEATURES, SpatialVerifier
from dolglab.progress import progress
from dolglab.sharing.backends import choose_backend
from dolglab.sharing.loading import LoadedExtractor, load_extractor

# Photos, and seconds at most, between two moments at which what was done is kept.
COMMIT_PHOTOS, COMMIT_SECONDS = 512, 60.0
# Photos that a plan describes to know how long one takes, and seconds after which it describes no more.
PLAN_SAMPLE, PLAN_SECONDS = 16, 10.0
# How a new library's photos are described where nobody says otherwise; no side is the model's own.
HOW: dict[str, Any] = {"scales": (1.0,), "max_side": None, "colour": "srgb", "decoding": "scaled"}
# Kinds of left out files, and rows of a table for no photo, that are named.
NAMED_KINDS, NAMED_ROWS = 6, 20
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
    engine: Engine = "local",
    address: str | None = None,
    store: str | None = None,
    backend: str = "auto",
    exclude: Sequence[str] = (),
    again: bool = False,
    plan: bool = False,
    damaged: bool = False,
    keep_local: bool = False,
    no_exif: bool = False,
) -> None:
    """Find photos, describe those that are new or changed, keep them in a library, and print what was done.

    The arguments are the options of `dolglab embed --help`; without `model`, `scales`, `max_side`, `colour` and
    `decoding` they are the library's, or a new one's `HOW`. With `keep_local`, or where the library does already, local
    features are kept too; with `no_exif` the library holds no date and place of photos' EXIF. With `plan` it only
    prints what there is to do. Raises UserError for a person's mistake.
    """
    if engine == "ray":
        if shard is not None:
            raise UserError("--engine ray shares the photos out itself: leave --shard out")
        ray_engine.check_address(address or ray_engine.LOCAL)
    elif address is not None:
        raise UserError("--address is of a Ray cluster: it goes with --engine ray")
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
        made, kept, adapter = HOW, None, None
        if (folder / FILE).exists():
            with closing(Catalogue(folder)) as catalogue:
                made, kept = catalogue.identity(), catalogue.local()
            adapter = adapter_of(folder, made)
        source = model or (model_source(made) if "source" in made else None)
        loaded = load_extractor(
            source,
            scales or made["scales"],
            max_side or made["max_side"],
            backend,
            colour or made["colour"],
            decoding or made["decoding"],
            # What made a library goes on with it.
            fingerprint=made.get("model") if model is None else None,
            threads=1,
            adapter=adapter,
        )
        adapted = ", adapted" if adapter else ""
        print(f"model: {loaded.identity['title']}{adapted}; photos of at most {loaded.identity['max_side']} pixels")
        # What describes everything anew may change how that is done.
        before = loaded.identity | ({key: made[key] for key in CHANGEABLE} if everything else {})
        verifier = _verifier(loaded, kept, keep_local)
        if plan:
            if (folder / FILE).exists():
                Library(folder, before).close()
            files.compare(Path(library), again, damaged)
            if backend == "auto":
                # Nothing is exported for a plan.
                loaded = choose_backend(loaded, 0, partial(first_pixels, loaded, files.changed()))
            _print_plan(library, loaded, files, threads, damaged, verifier)
            return
        opened = Library.open(library, before, store)
        with closing(opened), opened.writing():
            if lost := opened.forget_damaged():
                print(f"the descriptors of {pluralize(lost, 'photo')} are damaged or gone, and are made anew")
            files.compare(opened.folder, again, damaged)
            _note_files(opened, files)
            if again:
                opened.describe_anew((file.name for file in files.changed()), loaded.identity)
            if no_exif:
                with opened.change() as change:
                    change.take_exif(False)
            if verifier is not None:
                with opened.change() as change:
                    change.keep_local(verifier.config())
            todo = files.changed_count()
            if backend == "auto" and engine == "local":
                loaded = choose_backend(loaded, todo, partial(first_pixels, loaded, files.changed()))
            with progress("describing", todo, "photos") as count:

                def advance(name: str, why: str | None) -> None:
                    count(1)
                    if why is not None:
                        # Above the bar.
                        print(f"left out: {name!r}: {why}")

                if engine == "ray":
                    kind = None if verifier is None else verifier.config()
                    described = ray_engine.describe_files(
                        loaded, files.changed(), threads, damaged, kind, backend, address or ray_engine.LOCAL
                    )
                else:
                    describe_locally = None if verifier is None else verifier.packed
                    described = describe_files(loaded, files.changed(), threads, damaged, describe_locally)
                outcome = embed(opened, described, advance)
            with opened.catalogue.change() as change:
                for name, columns in files.metadata():
                    change.set_metadata(name, columns)
            there = len(files) - todo + outcome.unchanged
            if outcome.further:
                pages = f"{pluralize(sum(outcome.further.values()), 'further page')} of {len(outcome.further)}"
                print(f"left out: {pages}, whose first is described, such as {next(iter(outcome.further))!r}")
            if outcome.placed and opened.catalogue.takes_exif():
                said = f"{pluralize(outcome.placed, 'photo')} with a place in the EXIF: columns latitude and longitude"
                print(f"{said} (--no-exif leaves date and place out)")
            left = f", {outcome.bad} could not be read" if outcome.bad else ""
            done = f"{pluralize(outcome.added, 'photo')} described, {there} already there{left}"
            print(f"{done}: {len(opened)} in {library}")


def _verifier(loaded: LoadedExtractor, kept: object, asked: bool) -> SpatialVerifier | None:
    """What gives the local features that are to be kept, if any are; says what they are.

    Args:
        kept: the kind that the library keeps already; None where it keeps none.
        asked: whether the user wants some to be kept.
    """
    if not asked and kept is None:
        return None
    verifier = SpatialVerifier(loaded.identity["max_side"])
    if kept not in (None, verifier.config()):
        if not asked:
            print(f"no local features are kept: {verifier.method.title}'s here are of another kind than the library's")
            return None
        print("the library's local features are of another kind, and go")
    each = packed_bytes(FEATURES, verifier.method.extractor.dim)
    print(f"local features are kept: {verifier.method.title}, at most {each:,} bytes a photo")
    return verifier


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
    library: str, loaded: LoadedExtractor, files: Listing, threads: int, damaged: bool, verifier: SpatialVerifier | None
) -> None:
    todo = files.changed_count()
    sample = list(islice(files.changed(every=max(1, todo // PLAN_SAMPLE)), PLAN_SAMPLE))
    describe_locally = None if verifier is None else verifier.packed
    describe = partial(describe_files, loaded, threads=threads, damaged=damaged, describe_locally=describe_locally)
    each, tried = _seconds_a_photo(describe, sample, loaded.describer.workers)
    minutes = each * todo / 60
    takes = f"{minutes:.1f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
    local = 0 if verifier is None else packed_bytes(FEATURES, verifier.method.extractor.dim)
    size = todo * (4 * loaded.identity["dim"] + PHOTO_BYTES + local)
    doubtful = files.doubtful_count()
    whether = f" ({doubtful} only if their bytes have changed)" if doubtful else ""
    print(
        f"{pluralize(len(files), 'photo')} ({files.bytes / 1e9:.2f} GB), {todo} of them to be described{whether}: "
        f"about {takes} here, {each:.2f} s a photo by {tried} that {'was' if tried == 1 else 'were'} tried, and "
        f"{size / 1e6:.1f} MB in {library}"
    )


def _seconds_a_photo(
    describe: Callable[[Sequence[PhotoFile]], Iterable[Described]], sample: Sequence[PhotoFile], workers: int
) -> tuple[float, int]:
    """Seconds that one of many photos takes here, and by how many that is known.

    The first ones, one for each worker, say how many more there is time for, and count where that is none: they warm
    up what the others use.
    """

    def timed(files: Sequence[PhotoFile]) -> float:
        start = time.perf_counter()
        for _ in describe(files):
            pass
        return time.perf_counter() - start

    first, others = sample[:workers], sample[workers:]
    if not first:
        return 0.0, 0
    seconds = timed(first)
    if more := others[: int(PLAN_SECONDS / seconds) * len(first)]:
        return timed(more) / len(more), len(more)
    return seconds / len(first), len(first)


def embed(
    library: Library,
    described: Iterable[Described],
    advance: Callable[[str, str | None], None] = lambda name, why: None,
) -> Intake:
    """Keep what an engine gives in the library; gives how many it was.

    What was described is kept now and then, so that a process that is stopped goes on from there.

    Args:
        described: files as `describe_files` of `local_engine` and `ray_engine` give them.
        advance: told the name of each file that is done, and why it could not be read.
    """
    intake = Intake(library)
    try:
        for each in described:
            advance(each.photo.name, intake.add(each))
    finally:
        intake.commit()
    return intake


class Intake:
    """Puts photos that are done into a library, many at a time.

    Attributes:
        added: how many were described.
        unchanged: how many turned out to have the bytes that were described before.
        bad: how many could not be read.
        placed: how many say in their EXIF where they were taken.
        further: by name, how many pages a file has beside the one that is described.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.added = self.unchanged = self.bad = self.placed = 0
        self.photos: list[Photo] = []
        self.ctimes: list[tuple[str, int | None]] = []
        self.descriptors: list[NDArray[np.float32]] = []
        self.local: list[bytes | None] = []
        self.unread: list[Photo] = []
        self.further: dict[str, int] = {}
        self.since = time.monotonic()

    def add(self, described: Described) -> str | None:
        """Why it has no descriptor; None where it has."""
        photo, descriptor = described.photo, described.descriptor
        if described.further:
            self.further[photo.name] = described.further
        if descriptor is not None and not np.isfinite(descriptor).all():
            photo = replace(photo, shape=None, reason="the network gave no finite descriptor")
        if photo.reason is not None:
            self._add_unread(photo)
        elif descriptor is None:
            self.unchanged += 1
            self.ctimes.append((photo.name, photo.ctime))
        else:
            self.photos.append(photo)
            self.placed += LATITUDE in (photo.exif or {})
            self.descriptors.append(descriptor)
            self.local.append(described.local)
        waiting = len(self.photos) + len(self.unread) + len(self.ctimes)
        if waiting >= COMMIT_PHOTOS or time.monotonic() - self.since > COMMIT_SECONDS:
            self.commit()
        return photo.reason

    def commit(self) -> None:
        if self.photos:
            self.library.add(self.photos, np.stack(self.descriptors), self.local)
        if self.unread or self.ctimes:
            # An older descriptor of what could not be read is dropped.
            with self.library.change() as change:
                change.put(self.unread, [None] * len(self.unread))
                change.set_ctimes(self.ctimes)
        self.added += len(self.photos)
        self.photos, self.descriptors, self.local, self.unread, self.ctimes = [], [], [], [], []
        self.since = time.monotonic()
        # Batches of ever other shapes leave holes in glibc's heaps, and a process that runs for days would grow.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

    def _add_unread(self, photo: Photo) -> None:
        self.bad += 1
        known = self.library.catalogue.named(photo.name) if photo.size == UNKNOWN_SIZE else None
        # An older descriptor stays where this may pass.
        if known is None or known[1] is None:
            self.unread.append(photo)

"""Describe photos with a network and add them to a library: `dolglab embed`."""

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
from dolglab.progress import left_of, progress
from dolglab.sharing.backends import choose_backend
from dolglab.sharing.loading import LoadedExtractor, load_extractor

# Number of photos, and of seconds, after which results are committed.
COMMIT_PHOTOS, COMMIT_SECONDS = 512, 60.0
# Number of photos that a plan describes to estimate the time, and the seconds that this may take.
PLAN_SAMPLE, PLAN_SECONDS = 16, 10.0
# How a new library describes photos by default; without a side, the model's own is used.
HOW: dict[str, Any] = {"scales": (1.0,), "max_side": None, "colour": "srgb", "decoding": "scaled"}
# Number of types of skipped files, and of table rows without a photo, that messages name.
NAMED_KINDS, NAMED_ROWS = 6, 20
# Approximate bytes per photo in a library besides its descriptor.
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
    """Find photos, describe those that are new or changed, add them to a library, and print what was done.

    The arguments are the options of `dolglab embed --help`; `model`, `scales`, `max_side`, `colour` and `decoding`
    default to the library's own, or to `HOW` for a new one. With `keep_local`, or if the library does so already, local
    features are kept too; with `no_exif` the library gets no date and place from EXIF. With `plan`, nothing is written:
    it prints how much there is to do. Raises UserError for a user's mistake.
    """
    if engine == "ray":
        if shard is not None:
            raise UserError("--engine ray distributes the photos itself: omit --shard")
        ray_engine.check_address(address or ray_engine.LOCAL)
    elif address is not None:
        raise UserError("--address is the address of a Ray cluster: use it with --engine ray")
    folder = Path(library)
    everything = again and not places and listed is None and (folder / FILE).exists()
    if not places and listed is None and not everything:
        raise UserError("which photos? give folders, files or a prefix, or a list of them with --list")
    with closing(Listing(places, shard, listed, exclude, folder if everything else None)) as files:
        _print_left_out(files)
        if metadata is not None:
            count, strangers = files.join(metadata, NAMED_ROWS)
            if count:
                named = ", ".join(map(repr, strangers)) + (", ..." if count > NAMED_ROWS else "")
                print(f"{metadata}: {pluralize(count, 'row')} without a photo here: {named}")
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
            # By the fingerprint of the library's network, its ONNX file is found without torch.
            fingerprint=made.get("model") if model is None else None,
            threads=1,
            adapter=adapter,
        )
        adapted = ", adapted" if adapter else ""
        print(f"model: {loaded.identity['title']}{adapted}; photos of at most {loaded.identity['max_side']} pixels")
        # Describing all photos again may change how that is done.
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
                print(f"the descriptors of {pluralize(lost, 'photo')} are damaged or missing, and are computed again")
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
                    change.add_metadata(name, columns)
            there = len(files) - todo + outcome.unchanged
            if outcome.further:
                pages = pluralize(sum(outcome.further.values()), "further page")
                several = f"{pluralize(len(outcome.further), 'file')}, such as {next(iter(outcome.further))!r}"
                print(f"left out: {pages} of {several} (only the first page is described)")
            if outcome.placed and opened.catalogue.takes_exif():
                placed = f"{pluralize(outcome.placed, 'photo')} with a place in the EXIF"
                print(f"{placed}: columns latitude and longitude (--no-exif leaves date and place out)")
            left = f", {outcome.bad} could not be read" if outcome.bad else ""
            they = "it was" if outcome.vanished == 1 else "they were"
            left += f", {outcome.vanished} vanished before {they} read" if outcome.vanished else ""
            done = f"{pluralize(outcome.added, 'photo')} described, {there} already there{left}"
            print(f"{done}: {len(opened)} in {library}")


def _verifier(loaded: LoadedExtractor, kept: object, asked: bool) -> SpatialVerifier | None:
    """The verifier that computes local features to keep, if any are kept; prints which.

    Args:
        kept: the kind that the library keeps already; None if it keeps none.
        asked: whether the user wants to keep some.
    """
    if not asked and kept is None:
        return None
    verifier = SpatialVerifier(loaded.identity["max_side"])
    if kept not in (None, verifier.config()):
        if not asked:
            print(f"no local features are kept: {verifier.method.title} here differs from the library's kind")
            return None
        print("the library's local features are of another kind, and are deleted")
    each = packed_bytes(FEATURES, verifier.method.extractor.dim)
    print(f"local features are kept: {verifier.method.title}, at most {each:,} bytes per photo")
    return verifier


def _print_left_out(files: Listing) -> None:
    for error in files.unreadable:
        print(f"left out: {error.filename!r}: {reason(error)}")
    if files.others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in files.others.most_common(NAMED_KINDS))
        print(f"left out: {pluralize(files.others.total(), 'file')} of other types ({kinds})")
        if RAW_SUFFIXES & files.others.keys():
            print("raw photos cannot be read: convert them to TIFF or JPEG")
    if files.links:
        named = truncate_list([repr(link) for link in files.links])
        links = pluralize(len(files.links), "link")
        print(f"left out: {links} to places outside the folder: {named} (name these places to include them)")


def _note_files(library: Library, files: Listing) -> None:
    """Store properties of the files, and print which were found under two paths."""
    for name, photo in files.twins(1):
        count = pluralize(files.twin_count(), "path")
        print(f"left out: {count} to files that have another path too, such as {name!r}, which is {photo!r}")
    with library.change() as change:
        # Libraries of earlier versions have no ctimes; their photos are not described again for that.
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
    local = 0 if verifier is None else packed_bytes(FEATURES, verifier.method.extractor.dim)
    size = todo * (4 * loaded.identity["dim"] + PHOTO_BYTES + local)
    doubtful = files.doubtful_count()
    whether = f" ({doubtful} only if their bytes have changed)" if doubtful else ""
    print(f"{pluralize(len(files), 'photo')} ({files.bytes / 1e9:.2f} GB), {todo} of them to be described{whether}")
    if todo:
        measured = f"{each:.2f} s per photo, measured on {pluralize(tried, 'photo')}"
        print(f"time: about {left_of(each * todo)} on this machine ({measured})")
        print(f"disk: about {size / 1e6:.1f} MB in {library}")


def _seconds_a_photo(
    describe: Callable[[Sequence[PhotoFile]], Iterable[Described]], sample: Sequence[PhotoFile], workers: int
) -> tuple[float, int]:
    """Seconds per photo if there are many, and on how many photos this was measured.

    The first photos, one per worker, warm up the others and determine how many of them there is time for. They are
    measured themselves only if there is no time for others.
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
    """Add the results of an engine to the library; returns their counts.

    They are committed regularly, so that the same command continues after an interruption.

    Args:
        described: results of `describe_files` of `local_engine` or `ray_engine`.
        advance: called with the name of each finished file, and why it could not be read, or None.
    """
    intake = Intake(library)
    try:
        for each in described:
            advance(each.photo.name, intake.add(each))
    finally:
        intake.commit()
    return intake


class Intake:
    """Adds described photos to a library, many at a time.

    Attributes:
        added: number of described photos.
        unchanged: number of files whose bytes turned out to be unchanged.
        bad: number of files that could not be read.
        vanished: number of files that did not exist any more. Nothing is recorded of them; a photo that is already in
            the library keeps its descriptor until it is removed.
        placed: number of photos with a place in their EXIF.
        further: by name, the number of pages of a file besides the described one.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.added = self.unchanged = self.bad = self.vanished = self.placed = 0
        self.photos: list[Photo] = []
        self.ctimes: list[tuple[str, int | None]] = []
        self.descriptors: list[NDArray[np.float32]] = []
        self.local: list[bytes | None] = []
        self.unread: list[Photo] = []
        self.further: dict[str, int] = {}
        self.since = time.monotonic()

    def add(self, described: Described) -> str | None:
        """Add a result; returns why the photo has no descriptor, or None if it has one."""
        photo, descriptor = described.photo, described.descriptor
        if described.further:
            self.further[photo.name] = described.further
        if descriptor is not None and not np.isfinite(descriptor).all():
            photo = replace(photo, shape=None, reason="the network computed a descriptor that is not finite")
        if described.vanished:
            self.vanished += 1
        elif photo.reason is not None:
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
        """Write the results that were added since the last commit."""
        if self.photos:
            self.library.add(self.photos, np.stack(self.descriptors), self.local)
        if self.unread or self.ctimes:
            # An older descriptor of a file that could not be read is dropped.
            with self.library.change() as change:
                change.put(self.unread, [None] * len(self.unread))
                change.set_ctimes(self.ctimes)
        self.added += len(self.photos)
        self.photos, self.descriptors, self.local, self.unread, self.ctimes = [], [], [], [], []
        self.since = time.monotonic()
        # Batches of varying shapes fragment glibc's heap, so that the memory of a long run would grow.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

    def _add_unread(self, photo: Photo) -> None:
        self.bad += 1
        known = self.library.catalogue.named(photo.name) if photo.size == UNKNOWN_SIZE else None
        # If the failure may be temporary, an older descriptor stays.
        if known is None or known[1] is None:
            self.unread.append(photo)

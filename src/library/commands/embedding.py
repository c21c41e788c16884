"""The command that embeds: what it prints, and in which order it does things."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from src.contracts import InputError
from src.data.images import reason
from src.errors import counted
from src.library.catalogue import FILE, Catalogue
from src.library.describing import described, embed
from src.library.library import Library
from src.library.listing import Listing
from src.library.metadata import read_metadata
from src.library.model import Ready, ready_model
from src.library.photos import File

# Photos that a plan describes to know how long one takes.
TRIED = 16
# Kinds of other files that are named.
KINDS = 6


@dataclass(frozen=True)
class Request:
    """What a person asked for: see `src.embed`."""

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
    """Find, describe and keep; with `plan` only say what that would take. Raises InputError for a person's mistake."""
    if not asked.places and asked.listed is None:
        raise InputError("which photos? name folders, files or a prefix, or a list of them with --list")
    with closing(Listing(asked.places, asked.shard, asked.listed)) as files:
        for error in files.unreadable:
            print(f"left out: {error.filename!r}: {reason(error)}")
        if files.others:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in files.others.most_common(KINDS))
            print(f"left out: {counted(files.others.total(), 'file')} of another kind ({kinds})")
        strangers = sum(name is None for name, _ in _rows(asked, files))
        if strangers:
            print(f"{asked.metadata}: {counted(strangers, 'row')} for no photo here")
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
            print(f"the descriptors of {counted(lost, 'photo')} are damaged or gone, and are made anew")
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
        done = f"{counted(outcome.added, 'photo')} described, {len(files) - todo} already there{left}"
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
        f"{counted(len(files), 'photo')} ({files.bytes / 1e9:.2f} GB), {todo} of them to be described: "
        f"about {seconds / 60:.1f} minutes here, by {len(sample)} that were tried, and {size / 1e6:.1f} MB in "
        f"{asked.library}"
    )


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--scales wants numbers with commas between them, such as 0.7071,1, not {text}") from None

"""The command that embeds: what it prints, and in which order it does things."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from src.contracts import InputError
from src.library.catalogue import FILE, Catalogue
from src.library.embedding import Outcome, changed_files, described, embed, read
from src.library.library import Library
from src.library.metadata import read_metadata
from src.library.model import Ready, ready_model
from src.library.photos import File, find_photos, of_shard

# Photos that a plan describes to know how long one takes.
TRIED = 8


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


def embed_places(asked: Request, plan: bool = False) -> Outcome | None:
    """Find, describe and keep; with `plan` only say what that would take. Raises InputError for a person's mistake."""
    files = find_photos(asked.places)
    metadata, strangers = read_metadata(asked.metadata, files) if asked.metadata else ({}, 0)
    if strangers:
        print(f"{asked.metadata}: {strangers} rows name no photo here")
    if asked.shard is not None:
        # After the table was read, whose rows may name any of the photos.
        files = of_shard(files, asked.shard)
    ready = ready_model(_source(asked), _numbers(asked.scales), asked.max_side)
    print(f"model: {ready.title}")
    if plan:
        _tell_plan(asked, ready, files)
        return None
    library = Library.open(asked.library, ready.identity)
    with library.writing():
        if lost := library.forget_damaged():
            print(f"the descriptors of {lost} photos are damaged or gone, and are made anew")
        with progress_bar(len(changed_files(library, files))) as advance:
            outcome = embed(library, ready, files, asked.threads, advance)
        _join(library, metadata)
    for photo in outcome.bad:
        print(f"left out: {photo.name!r}: {photo.reason}")
    left = f", {len(outcome.bad)} could not be read" if outcome.bad else ""
    print(f"{outcome.added} photos described, {outcome.known} were there{left}: {len(library)} in {asked.library}")
    return outcome


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int], None]]:
    """A bar in the terminal, and what moves it."""
    with Progress(console=Console(stderr=True), disable=not total) as bar:
        task = bar.add_task("describing", total=total)
        yield lambda count: bar.advance(task, count)


def _source(asked: Request) -> str | None:
    """What was asked for; of a library that is there, what made it."""
    if asked.model is None and (Path(asked.library) / FILE).exists():
        catalogue = Catalogue(Path(asked.library))
        source: str | None = catalogue.about("identity").get("source")
        catalogue.close()
        return source
    return asked.model


def _join(library: Library, metadata: dict[str, dict[str, str]]) -> None:
    """Give photos their columns, whether they were there before or not."""
    with library.catalogue.change() as change:
        for name, columns in metadata.items():
            change.describe(name, columns)


def _tell_plan(asked: Request, ready: Ready, files: Sequence[File]) -> None:
    there = (Path(asked.library) / FILE).exists()
    todo = changed_files(Library(asked.library, ready.identity), files) if there else list(files)
    sample = todo[:: max(1, len(todo) // TRIED)][:TRIED]
    start = time.perf_counter()
    for place, (_, pixels) in enumerate(read(sample, asked.max_side, asked.threads)):
        if not isinstance(pixels, str):
            described(ready, [(place, torch.from_numpy(pixels))])
    seconds = (time.perf_counter() - start) / max(1, len(sample)) * len(todo)
    size = len(todo) * (4 * ready.identity["dim"] + 300)
    print(
        f"{len(files)} photos ({sum(file.size for file in files) / 1e9:.2f} GB), {len(todo)} of them to be described: "
        f"about {seconds / 60:.1f} minutes here, by {len(sample)} that were tried, and {size / 1e6:.1f} MB in "
        f"{asked.library}"
    )


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--scales wants numbers with commas between them, such as 0.7071,1, not {text}") from None

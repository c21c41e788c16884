"""The first answers to a run's queries with thumbnails, stored beside its card for reports.

A report that compares runs needs the same queries of each, and cannot read the benchmark, whose photos may be on
another machine. Each run therefore stores a subset of the queries that is the same for all runs of a benchmark.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageDraw

from dolglab.concurrency import available_cores, prefetch_map
from dolglab.contracts import ImageSource, IntArray, Ranking
from dolglab.errors import UserError
from dolglab.io import file_name, write_bytes
from dolglab.results.pictures import (
    SIGNS,
    Box,
    Kind,
    answers_of,
    chosen_queries,
    decode_small,
    draw_box,
    jpeg,
    kind_of,
    query_box,
    shown_ap,
    shown_difficulty,
    worst_queries,
)
from dolglab.results.stored_rankings import DAMAGED

# Queries stored by every run; a run's own examples, from the best to the worst; its worst queries; answers per query.
KEPT, SHOWN, WORST, ANSWERS = 100, 8, 6, 6
# The longer side of a thumbnail in pixels, and its largest size in bytes.
SIDE, MAX_BYTES = 180, 7_000
FOLDER, LISTING = "answers", "answers.json"


@dataclass(frozen=True)
class Answer:
    """An answer to a query: its name, its kind, and its thumbnail (None if it could not be read)."""

    name: str
    kind: Kind
    photo: bytes | None


@dataclass(frozen=True)
class QueryAnswers:
    """A query and its first answers, best first; `before` are those before re-ranking.

    `right` is the number of right photos in the gallery; None in files of earlier versions.
    """

    query: Answer
    answers: tuple[Answer, ...]
    before: tuple[Answer, ...] = ()
    right: int | None = None


def write_answers(run: Path, ranking: Ranking) -> Path:
    """Write `answers/BENCHMARK.zip`: the first answers to some queries, and each photo once as a small JPEG.

    A query's own photo is left out of its answers.
    """
    benchmark, difficulty, ap = ranking.benchmark, shown_difficulty(ranking), shown_ap(ranking)
    queries = sorted({*kept_queries(len(ap)), *chosen_queries(ap, SHOWN), *worst_queries(ap, WORST)})

    def first(query: int, row: IntArray) -> list[tuple[int, Kind]]:
        found = answers_of(benchmark, query, row)[:ANSWERS].tolist()
        return [(position, kind_of(benchmark, query, position, difficulty)) for position in found]

    def wanted(query: int) -> list[int]:
        return [*benchmark.ground_truth.easy[query].tolist(), *benchmark.ground_truth.hard[query].tolist()]

    listed: dict[str, Any] = {}
    for query in queries:
        listed[str(query)] = {
            "query": int(benchmark.queries[query]),
            "answers": first(query, ranking.top[query]),
            "right": sum(kind_of(benchmark, query, image, difficulty) == "positive" for image in wanted(query)),
            **({} if ranking.before is None else {"before": first(query, ranking.before[query])}),
        }
    answers = [*(row["answers"] for row in listed.values()), *(row.get("before", ()) for row in listed.values())]
    positions = sorted({position for row in answers for position, _ in row} | {row["query"] for row in listed.values()})
    listing = {"names": {position: benchmark.source.name(position) for position in positions}, "queries": listed}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(LISTING, json.dumps(listing))
        for name, photo in _photos(ranking, positions, queries):
            archive.writestr(name, photo)
    return write_bytes(answers_file(run, benchmark.name), file.getvalue())


def answers_file(run: Path, benchmark: str) -> Path:
    """The file of a run's first answers on a benchmark."""
    return run / FOLDER / f"{file_name(benchmark)}.zip"


def kept_queries(count: int) -> list[int]:
    """The queries that every run of a benchmark with `count` queries stores: all, or evenly chosen ones.

    >>> kept_queries(3), len(kept_queries(5000))
    ([0, 1, 2], 100)
    """
    return np.linspace(0, count - 1, min(KEPT, count)).round().astype(int).tolist()


def _photos(ranking: Ranking, positions: Sequence[int], queries: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """File names and thumbnails: photos are named by position; a cropped query, with its box, by its number."""
    benchmark = ranking.benchmark
    boxes = {query: box for query in queries if (box := query_box(benchmark, query)) is not None}
    whole = [(f"{position}.jpg", position, None) for position in positions]
    cropped = [(f"query_{query}.jpg", int(benchmark.queries[query]), box) for query, box in boxes.items()]

    threads = available_cores()
    # Decoding releases Python's lock, so threads run in parallel.
    read = prefetch_map(lambda job: _small(benchmark.source, *job[1:]), [*whole, *cropped], threads, 2 * threads)
    for (name, *_), photo in read:
        if photo is not None:
            yield name, photo


def _small(source: ImageSource, position: int, box: Box | None) -> bytes | None:
    """A photo as a small JPEG with `box` drawn in it; None if it cannot be read."""
    try:
        small, scale = decode_small(source.read(position), SIDE)
    except Exception:  # A broken file makes Pillow raise nearly anything; a page says that it could not be read.
        return None
    if box is not None:
        x1, y1, x2, y2 = (scale * edge for edge in box)
        draw_box(ImageDraw.Draw(small), (x1, y1, x2, y2))
    return jpeg(small, MAX_BYTES)


def read_answers(run: Path, benchmark: str) -> dict[int, QueryAnswers]:
    """The stored queries of a run, by number; empty without a file. Raises UserError for a damaged file."""
    path = answers_file(run, benchmark)
    if not path.exists():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            listing = json.loads(archive.read(LISTING))
            photos = {name: archive.read(name) for name in archive.namelist() if name != LISTING}
        return {int(query): _query(query, row, listing["names"], photos) for query, row in listing["queries"].items()}
    except (*DAMAGED, AttributeError) as error:
        raise UserError(f"{path} does not hold the answers of a run ({error}): evaluate again") from None


def _query(query: str, row: Mapping[str, Any], names: Mapping[str, str], photos: Mapping[str, bytes]) -> QueryAnswers:
    def answer(position: int, kind: Kind) -> Answer:
        if kind not in SIGNS:
            raise ValueError(f"an answer of the kind {kind!r}")
        return Answer(names[str(position)], kind, photos.get(f"{position}.jpg"))

    own = answer(row["query"], "query")
    cropped = photos.get(f"query_{query}.jpg", own.photo)
    return QueryAnswers(
        Answer(own.name, own.kind, cropped),
        tuple(answer(position, kind) for position, kind in row["answers"]),
        tuple(answer(position, kind) for position, kind in row.get("before", ())),
        row.get("right"),
    )

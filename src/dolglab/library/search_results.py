"""`dolglab search`: answers as a table on the terminal, as JSON, and as a page with thumbnails."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dolglab.data.addresses import NotAllowedError, check_allowed
from dolglab.data.colour import Pixels
from dolglab.data.image_reading import shrink
from dolglab.data.photos import Box, photo_pixels, read_box
from dolglab.errors import UserError, pluralize
from dolglab.io import write_text
from dolglab.library.contents import Answer, Photo
from dolglab.library.explain import Explanation
from dolglab.library.filters import parse_filters
from dolglab.library.listing import find_photos
from dolglab.library.naming import printable
from dolglab.library.search_engine import SearchEngine
from dolglab.results.pictures import data_uri, jpeg
from dolglab.templates import template

RERANKERS = ("spatial",)
# Number of queries that are described together.
BATCH = 16
# Longer side of the pictures on the page, in pixels.
THUMBNAIL = 360
# The terms of a cosine.
TERMS = ("global", "local", "cross", "bias")
NUMERIC = frozenset({"cosine", "inliers", *TERMS})
# The column of photos' names, and the largest width of a table in characters.
PHOTO, WIDTH = "photo", 10_000


@dataclass(frozen=True)
class SearchResult:
    """A query with its answers, best first.

    Attributes:
        query: name of the query.
        box: the part of it that was searched for, x1, y1, x2, y2 in pixels; None for the whole photo.
        picture: a JPEG of what was searched for; empty if no page is written.
        answers: the photos that were found.
        reasons: why each was found; None if this was not requested, or if its photo cannot be read.
        features: name of the local features whose inliers are counted; None if they are not.
    """

    query: str
    box: Box | None
    picture: bytes
    answers: Sequence[Answer]
    reasons: Sequence[Explanation | None]
    features: str | None = None

    @property
    def exact(self) -> bool:
        """Whether all photos were compared."""
        return all(answer.exact for answer in self.answers)

    @property
    def title(self) -> str:
        """The query's name, and the part of it that was searched for."""
        box = "" if self.box is None else f", part {','.join(f'{side:g}' for side in self.box)}"
        return printable(self.query) + box


def search_photos(
    queries: Sequence[str],
    library: str,
    *,
    top: int = 20,
    box: str | None = None,
    where: Sequence[str] = (),
    min_cosine: float = -1.0,
    rerank: str | None = None,
    exact: bool = False,
    explain: bool = False,
    as_json: bool = False,
    html: str | None = None,
    backend: str = "auto",
) -> None:
    """Search a library for each query, print the answers and write the page.

    The arguments are the options of `dolglab search --help`; `min_cosine` is `--least` there.
    Raises UserError for a user's mistake.
    """
    if rerank not in (None, *RERANKERS):
        raise UserError(f"--rerank must be {' or '.join(RERANKERS)}, not {rerank}")
    part, filters = None if box is None else read_box(box), parse_filters(where, "--where")
    names = [file.name for file in find_photos(queries)]
    engine = SearchEngine(library, backend)
    features = engine.verifier.method.title if rerank is not None or explain else None
    results: list[SearchResult] = []
    for start in range(0, len(names), BATCH):
        images = _read_queries(names[start : start + BATCH], engine, part, alone=len(names) == 1)
        found = engine.search(list(images.values()), top, filters, rerank is not None, exact=exact) if images else []
        for (name, image), row in zip(images.items(), found, strict=True):
            answers = [answer for answer in row if answer.cosine >= min_cosine]
            reasons = [_explanation(engine, image, answer) if explain else None for answer in answers]
            picture = thumbnail(image) if html else b""
            result = SearchResult(name, part, picture, answers, reasons, features)
            if not as_json:
                _print_result(result, [*where, *([f"a cosine of at least {min_cosine:g}"] if min_cosine > -1 else [])])
            results.append(result)
    if not results:
        raise UserError(f"none of the {len(names)} queries can be read")
    if html is not None or rerank is not None or explain:
        _print_not_opened(results)
    if html is not None:
        write_page(Path(html), results)
    if as_json:
        print(json.dumps([to_json(result) for result in results], indent=1))
    elif html is not None:
        print(f"page: {html} ({Path(html).stat().st_size / 1e6:.1f} MB)")


def _read_queries(names: Sequence[str], engine: SearchEngine, box: Box | None, alone: bool) -> dict[str, Pixels]:
    """Pixels by name; queries that cannot be read are reported and left out, unless it is the only one."""
    pixels = {}
    for name in names:
        try:
            pixels[name] = photo_pixels(name, engine.max_side, box, engine.reading)
        except UserError as error:
            if alone:
                raise
            print(f"left out: {printable(str(error))}", file=sys.stderr)
    return pixels


def _print_not_opened(results: Sequence[SearchResult]) -> None:
    """Report photos that were not opened because the user does not allow their addresses."""
    refused = dict[str, str]()
    for photo in (answer.photo for result in results for answer in result.answers if "://" in answer.photo.name):
        try:
            check_allowed(photo.name)
        except NotAllowedError as error:
            refused[photo.name] = printable(str(error))
    if refused:
        print(f"{pluralize(len(refused), 'photo')} not opened: {next(iter(refused.values()))}", file=sys.stderr)


def _explanation(engine: SearchEngine, query: Pixels, answer: Answer) -> Explanation | None:
    try:
        return engine.explain(query, answer)
    except UserError:
        # Its photo can no longer be read.
        return None


def _print_result(result: SearchResult, conditions: Sequence[str]) -> None:
    if result.answers:
        print(result.title)
        # As wide as its contents, so that a photo's path is on one line and can be copied.
        Console(width=WIDTH, soft_wrap=True).print(to_table(result))
        if result.features is not None:
            print(f"inliers of {result.features}")
        if not result.exact:
            print("only candidates from an index were compared; --exact compares all photos")
    else:
        print(f"{result.title}: no photo found{' with ' if conditions else ''}{', '.join(conditions)}")


def to_table(result: SearchResult) -> Table:
    """The answers with all their columns; the last one has names, relative to the current folder if below it."""
    here = f"{Path.cwd()}/"
    rows = [dict(_cells(*pair, here)) for pair in zip(result.answers, result.reasons, strict=True)]
    columns = [
        key
        for key in dict.fromkeys([*(key for row in rows for key in row if key != PHOTO), PHOTO])
        # The cosine of a network without a local branch has one term.
        if key not in TERMS or any(float(row.get(key, "0")) for row in rows)
    ]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right")
    for name in columns:
        table.add_column(Text(printable(name)), justify="right" if name in NUMERIC else "left")
    for rank, row in enumerate(rows, 1):
        table.add_row(str(rank), *(Text(printable(row.get(key, ""))) for key in columns))
    return table


def _cells(answer: Answer, reason: Explanation | None, folder: str) -> Iterator[tuple[str, str]]:
    yield "cosine", f"{answer.cosine:.3f}"
    if reason is not None and reason.terms is not None:
        yield from ((name, f"{term:.3f}") for name, term in zip(TERMS, reason.terms, strict=True) if term is not None)
    if (inliers := _inliers(answer, reason)) is not None:
        yield "inliers", str(inliers)
    yield from answer.photo.metadata.items()
    yield PHOTO, answer.photo.name.removeprefix(folder) + ("" if answer.there else " (gone)")


def _inliers(answer: Answer, reason: Explanation | None) -> int | None:
    return answer.inliers if reason is None else reason.inliers


def common_folder(answers: Sequence[Answer]) -> str:
    """The deepest folder that all photos are below, with a trailing slash; empty if there is none."""
    folders = [answer.photo.name.rpartition("/")[0] + "/" for answer in answers] or [""]
    pairs = zip(min(folders), max(folders), strict=False)
    shared = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return shared[: shared.rfind("/") + 1]


def to_json(result: SearchResult) -> dict[str, Any]:
    """The result as plain values for JSON."""
    answers = []
    for rank, (answer, reason) in enumerate(zip(result.answers, result.reasons, strict=True), 1):
        values: dict[str, Any] = {
            "rank": rank,
            "cosine": round(answer.cosine, 6),
            "photo": answer.photo.name,
            "there": answer.there,
            "metadata": dict(answer.photo.metadata),
        }
        if (inliers := _inliers(answer, reason)) is not None:
            values["inliers"] = inliers
        if reason is not None:
            values["matches"] = reason.matches
            values["terms"] = None if reason.terms is None else dict(zip(TERMS, reason.terms, strict=True))
        answers.append(values)
    return {
        "query": result.query,
        "box": result.box,
        "score": "cosine",
        "exact": result.exact,
        "features": result.features,
        "answers": answers,
    }


def write_page(path: Path, results: Sequence[SearchResult]) -> Path:
    """Write the page to `path` atomically. Raises UserError if it cannot be written."""
    page = template(
        Path(__file__).with_name("page.html.j2"),
        common_folder=common_folder,
        data_uri=data_uri,
        inliers=_inliers,
        photo_uri=_photo_uri,
        printable=printable,
    )
    try:
        return write_text(path, page.render(results=results))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _photo_uri(photo: Photo) -> str | None:
    """A thumbnail of a photo for the page; None if it can no longer be read."""
    try:
        return data_uri(thumbnail(photo.pixels(THUMBNAIL)))
    except UserError:
        return None


def thumbnail(pixels: Pixels) -> bytes:
    """A small JPEG of a photo, (H, W, 3)."""
    return jpeg(Image.fromarray(shrink(pixels, THUMBNAIL)))

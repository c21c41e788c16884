"""The command that searches: what it prints and writes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from dolglab.data.image_reading import shrink
from dolglab.errors import UserError
from dolglab.io import is_utf8, write_text
from dolglab.library.explain import Explanation
from dolglab.library.library import Answer
from dolglab.library.photos import find_photos
from dolglab.library.query import Box, photo_pixels, read_box
from dolglab.library.search_engine import Finder, Found, as_data, common_folder, printable, table_of, title_of
from dolglab.results.pictures import jpeg
from dolglab.results.report import data_uri
from dolglab.templates import template

THUMBNAIL = 360
TERMS = ("global with global", "local with local", "global with local", "with the bias")


def write_page(path: Path, found: Sequence[Found]) -> Path:
    """Write the page at `path` in one step. Raises UserError where it cannot be written."""
    page = template(Path(__file__).with_name("page.html.j2"))
    html = page.render(searches=[_search(one) for one in found])
    try:
        return write_text(path, html)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _search(found: Found) -> dict[str, Any]:
    pairs = zip(found.answers, found.reasons, strict=True)
    folder = common_folder(found.answers)
    answers = [_answer(rank, folder, *pair) for rank, pair in enumerate(pairs, 1)]
    return {
        "name": title_of(found),
        "image": data_uri(found.picture),
        "folder": printable(folder),
        "verified": any(answer.inliers is not None for answer in found.answers),
        "answers": answers,
    }


def _answer(rank: int, folder: str, answer: Answer, reason: Explanation | None) -> dict[str, Any]:
    inside, _, name = answer.photo.name.removeprefix(folder).rpartition("/")
    return {
        "rank": rank,
        "image": _thumbnail_of(answer),
        "name": printable(name),
        "folder": printable(inside),
        "cosine": f"{answer.cosine:.3f}",
        "inliers": answer.inliers if reason is None else reason.inliers,
        "metadata": dict(answer.photo.metadata),
        "reason": None if reason is None else _why(reason),
    }


def _why(reason: Explanation) -> dict[str, Any]:
    terms = [] if reason.terms is None else zip(TERMS, (f"{term:+.3f}" for term in reason.terms), strict=True)
    return {
        "terms": list(terms),
        "matches": f"{reason.inliers} inliers of {reason.matches} matches",
        "picture": data_uri(reason.picture),
        "attention": [data_uri(image) for image in reason.attention],
    }


def _thumbnail_of(answer: Answer) -> str | None:
    """None where the photo can no longer be read."""
    try:
        return data_uri(thumbnail(photo_pixels(answer.photo.name, THUMBNAIL)))
    except UserError:
        return None


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A small JPEG of a photo, (H, W, 3)."""
    return jpeg(Image.fromarray(shrink(pixels, THUMBNAIL)))


RERANKERS = ("spatial",)
# Queries that are described together.
TOGETHER = 16


@dataclass(frozen=True)
class Request:
    """What a person asked for: see `dolglab search`."""

    queries: Sequence[str]
    library: str
    top: int
    box: str | None = None
    where: Sequence[str] = ()
    least: float = -1.0
    rerank: str | None = None
    explain: bool = False
    as_json: bool = False
    html: str | None = None
    backend: str = "torch"


def search_photos(asked: Request) -> None:
    """Search for each query, print the answers and write the page. Raises UserError for a person's mistake."""
    if asked.rerank not in (None, *RERANKERS):
        raise UserError(f"--rerank is {' or '.join(RERANKERS)}, not {asked.rerank}")
    box, filters = None if asked.box is None else read_box(asked.box), read_filters(asked.where)
    finder = Finder(asked.library, asked.backend)
    names = [file.name for file in find_photos(asked.queries)]
    found: list[Found] = []
    for start in range(0, len(names), TOGETHER):
        readable = _read(names[start : start + TOGETHER], finder.max_side, box, alone=len(names) == 1)
        for one in _found(finder, asked, box, filters, readable):
            if not asked.as_json:
                _show(asked, one)
            found.append(one)
    if not found:
        raise UserError(f"none of {len(names)} queries can be searched for")
    _write(asked, found)


def read_filters(where: Sequence[str]) -> dict[str, str]:
    """Values by column. Raises UserError for what is no COLUMN=VALUE."""
    for condition in where:
        if not is_utf8(condition):
            raise UserError(f"--where {os.fsencode(condition)!r} is not UTF-8")
        if "=" not in condition:
            raise UserError(f"--where wants COLUMN=VALUE, not {condition}")
    return dict(condition.split("=", 1) for condition in where)


def _read(names: Sequence[str], max_side: int, box: Box | None, alone: bool) -> dict[str, NDArray[np.uint8]]:
    """Pixels by name; of several, one that cannot be read is told of and left out."""
    pixels = {}
    for name in names:
        try:
            pixels[name] = photo_pixels(name, max_side, box)
        except UserError as error:
            if alone:
                raise
            print(f"left out: {printable(str(error))}", file=sys.stderr)
    return pixels


def _found(
    finder: Finder, asked: Request, box: Box | None, filters: dict[str, str], queries: dict[str, NDArray[np.uint8]]
) -> Iterator[Found]:
    pixels = list(queries.values())
    answers = finder.search(pixels, asked.top, filters, verify=asked.rerank is not None) if pixels else []
    for (name, image), row in zip(queries.items(), answers, strict=True):
        kept = [answer for answer in row if answer.cosine >= asked.least]
        reasons = [_reason(finder, asked, image, answer) for answer in kept]
        yield Found(name, box, thumbnail(image) if asked.html else b"", kept, reasons)


def _reason(finder: Finder, asked: Request, query: np.ndarray, answer: Answer) -> Explanation | None:
    if not asked.explain:
        return None
    try:
        return finder.explain(query, answer)
    except UserError:
        # Its photo cannot be read any more.
        return None


def _show(asked: Request, one: Found) -> None:
    if one.answers:
        folder = common_folder(one.answers)
        print(title_of(one) + (f", answers in {printable(folder)}" if folder else ""))
        Console().print(table_of(one))
    else:
        print(f"{title_of(one)}: no photo passes{_conditions(asked)}")


def _write(asked: Request, found: Sequence[Found]) -> None:
    if asked.html is not None:
        write_page(Path(asked.html), found)
    if asked.as_json:
        print(json.dumps([as_data(one) for one in found], indent=1))
    elif asked.html is not None:
        print(f"page: {asked.html}")


def _conditions(asked: Request) -> str:
    least = [f"a cosine of {asked.least:g} or more"] if asked.least > -1 else []
    return "".join(f" {condition}" for condition in [", ".join([*asked.where, *least])] if condition)

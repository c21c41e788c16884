"""Answers as a page: a single file with thumbnails, which asks nothing of any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from src.contracts import InputError
from src.data.images import shrink
from src.files import write_text
from src.library.answer import Answer
from src.library.answers import Found, common_folder, printable, title_of
from src.library.explanation import Explanation
from src.library.query import photo_pixels
from src.results.drawing import jpeg
from src.results.page import data_uri
from src.templates import template

THUMBNAIL = 360
TERMS = ("global with global", "local with local", "global with local", "with the bias")


def write_page(path: Path, found: Sequence[Found]) -> Path:
    """Write the page at `path` in one step. Raises InputError where it cannot be written."""
    page = template(Path(__file__).with_name("page.html.j2"))
    html = page.render(searches=[_search(one) for one in found])
    try:
        return write_text(path, html)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


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
        "reason": None if reason is None else _reason(reason),
    }


def _reason(reason: Explanation) -> dict[str, Any]:
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
    except InputError:
        return None


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A small JPEG of a photo, (H, W, 3)."""
    return jpeg(Image.fromarray(shrink(pixels, THUMBNAIL)))

"""Answers for a person and for a program: a table in the terminal, and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from rich.table import Table
from rich.text import Text

from src.library.answer import Answer
from src.library.explanation import Explanation
from src.library.query import Box


@dataclass(frozen=True)
class Found:
    """A query with its answers, best first.

    Attributes:
        query: its name.
        box: the part of it that was searched for, x1, y1, x2, y2 in pixels; None for the whole.
        picture: a JPEG of what was searched for; empty where nobody will see it.
        answers: the photos.
        reasons: why each was found; None where nobody asked, or its photo is gone.
    """

    query: str
    box: Box | None
    picture: bytes
    answers: Sequence[Answer]
    reasons: Sequence[Explanation | None]


def title_of(found: Found) -> str:
    """The query's name, and which part of it was searched for."""
    box = "" if found.box is None else f", part {','.join(f'{side:g}' for side in found.box)}"
    return printable(found.query) + box


def table_of(found: Found) -> Table:
    """The answers with the columns that any of them has; their names below the folder that all are in."""
    folder = common_folder(found.answers)
    rows = [dict(_cells(*pair, folder)) for pair in zip(found.answers, found.reasons, strict=True)]
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if _tells(key, rows)]
    table = Table()
    table.add_column("", justify="right")
    for name in columns:
        table.add_column(Text(printable(name)), justify="right" if name in NUMBERS else "left", overflow="fold")
    for rank, row in enumerate(rows, 1):
        table.add_row(str(rank), *(Text(printable(row.get(key, ""))) for key in columns))
    return table


def as_data(found: Found) -> dict[str, Any]:
    """The same as plain values."""
    pairs = zip(found.answers, found.reasons, strict=True)
    answers = [{"rank": rank, **_values(*pair)} for rank, pair in enumerate(pairs, 1)]
    return {"query": found.query, "box": found.box, "score": "cosine", "answers": answers}


def printable(text: str) -> str:
    """A name with what a terminal would act on, and what is no Unicode, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def common_folder(answers: Sequence[Answer]) -> str:
    """The folder, with its last /, that all photos are below; empty where there is none."""
    folders = [answer.photo.name.rpartition("/")[0] + "/" for answer in answers] or [""]
    shared = "".join(
        a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(min(folders), max(folders), strict=False))
    )
    return shared[: shared.rfind("/") + 1]


TERMS = ("global", "local", "cross", "bias")
NUMBERS = frozenset({"cosine", "inliers", *TERMS})


def _tells(key: str, rows: Sequence[dict[str, str]]) -> bool:
    """A global-only network's cosines have one term."""
    return key not in TERMS or any(float(row.get(key, "0")) for row in rows)


def _cells(answer: Answer, reason: Explanation | None, folder: str) -> Iterator[tuple[str, str]]:
    yield "cosine", f"{answer.cosine:.3f}"
    if reason is not None and reason.terms is not None:
        yield from zip(TERMS, (f"{term:.3f}" for term in reason.terms), strict=True)
    inliers = answer.inliers if reason is None else reason.inliers
    if inliers is not None:
        yield "inliers", str(inliers)
    yield "photo", answer.photo.name.removeprefix(folder) + ("" if answer.there else " (gone)")
    yield from answer.photo.metadata.items()


def _values(answer: Answer, reason: Explanation | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        "cosine": round(answer.cosine, 6),
        "photo": answer.photo.name,
        "there": answer.there,
        "metadata": dict(answer.photo.metadata),
    }
    inliers = answer.inliers if reason is None else reason.inliers
    if inliers is not None:
        values["inliers"] = inliers
    if reason is not None:
        values["matches"] = reason.matches
        values["terms"] = None if reason.terms is None else dict(zip(TERMS, reason.terms, strict=True))
    return values

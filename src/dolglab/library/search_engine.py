"""A library together with the network that asks it: what a command, a page and a program search with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from dolglab.library.explain import DEPTH, Explanation, Verifier, explain
from dolglab.library.library import Answer, Library
from dolglab.library.query import Box, photo_pixels, ready_model


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


class Finder:
    """Searches the library in a folder with the network that made it, run by torch or onnx.

    Raises UserError where there is no library, or its network is no longer to be had.
    """

    def __init__(self, folder: str | Path, backend: str = "torch") -> None:
        self.library = Library(folder)
        made = self.library.identity
        self.max_side: int = made["max_side"]
        self.ready = ready_model(made["source"], made["scales"], self.max_side, backend)
        self.library.check(self.ready.identity)
        self._verifier = Verifier(self.max_side)

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Descriptors, (n, dim), of pixels, (H, W, 3) each, as `query_pixels` gives them."""
        with torch.inference_mode():
            return self.ready.extractor([torch.from_numpy(image) for image in images]).float().cpu().numpy()

    def search(
        self,
        queries: Sequence[NDArray[np.uint8]],
        count: int = 20,
        filters: Mapping[str, str] | None = None,
        verify: bool = False,
    ) -> list[list[Answer]]:
        """The best answers to each query's pixels; with `verify` re-ranked by local features.

        Raises UserError for a column that no photo has.
        """
        return self.search_described(self.describe(queries), queries, count, filters, verify)

    def search_described(
        self,
        descriptors: NDArray[np.float32],
        queries: Sequence[NDArray[np.uint8]],
        count: int = 20,
        filters: Mapping[str, str] | None = None,
        verify: bool = False,
    ) -> list[list[Answer]]:
        """The same for queries whose descriptors, (Q, dim), are known."""
        found = self.library.search(descriptors, max(count, DEPTH) if verify else count, filters)
        if verify:
            found = [self._verifier(query, answers) for query, answers in zip(queries, found, strict=True)]
        return [answers[:count] for answers in found]

    def explain(self, query: NDArray[np.uint8], answer: Answer) -> Explanation:
        """Why an answer was found. Raises UserError where its photo can no longer be read."""
        return explain(self.ready, self._verifier, query, photo_pixels(answer.photo.name, self.max_side))

"""Published figures (`published.json`): those claimed by authors, and those remeasured by others."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from dolglab.results.tables import Cell, Column, Footnotes, Summary, make_table, mark_best

TITLE = "Published, on ROxford5k / RParis6k (not measured here)"
LINE = (
    "Families as in the paper's table: (A) local features aggregated and re-ranked, (B) global, (C) global, then "
    "local re-ranking. +1M: with a million distractors."
)
# The benchmarks of the paper's table, with its names.
PAPER_SETS = {"roxford5k": "ROxf", "roxford5k+1M": "ROxf+1M", "rparis6k": "RPar", "rparis6k+1M": "RPar+1M"}


class Published(NamedTuple):
    """A method's figures in percent, by benchmark and difficulty.

    `source` is a key of SOURCES. The training data and the descriptors' length are None if the source does not state
    them.
    """

    method: str
    kind: Literal["claimed", "remeasured"]
    source: str
    training: str | None
    dimensions: int | None
    reranked: bool
    figures: Mapping[str, Mapping[str, float]]


_FILE = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
# The sources of published figures.
SOURCES: dict[str, str] = _FILE["sources"]
ROWS: tuple[Published, ...] = tuple(Published(**row) for row in _FILE["rows"])


def paper_rows() -> list[Published]:
    """The rows with a figure in each column of the paper's table."""
    return [
        row
        for row in ROWS
        if row.kind == "claimed" and all({"medium", "hard"} <= row.figures.get(name, {}).keys() for name in PAPER_SETS)
    ]


def published_summary() -> Summary:
    """The paper's table as a separate section, with the best of its own columns marked."""
    notes = Footnotes(string.ascii_lowercase)
    rows = paper_rows()
    columns = {
        Column(("published", difficulty), difficulty.capitalize(), label): mark_best(
            [Cell(f"{row.figures[name][difficulty]:.2f}") for row in rows]
        )
        for difficulty in ("medium", "hard")
        for name, label in PAPER_SETS.items()
    }
    columns[Column(("published", "source"), "", "source")] = [
        Cell(row.source, notes.mark(SOURCES[row.source])) for row in rows
    ]
    table = make_table("Mean average precision, %", [Cell(row.method) for row in rows], columns)
    return Summary(TITLE, (table,), notes.texts(), (LINE,))

"""Tables without a medium: a row a method, a column a figure, and the notes without which neither means anything."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Card = Mapping[str, Any]
# A data set's name, and the digest of its ground truth.
Dataset = tuple[str, str]
MISSING, MINUS = "–", "−"  # noqa: RUF001
NUMBERS: tuple[str, ...] = tuple(str(number) for number in range(1, 1000))
LETTERS: tuple[str, ...] = tuple(string.ascii_lowercase)


@dataclass(frozen=True)
class Column:
    """A column's data set, its heading, and the one it shares with its neighbours (empty where the title says it)."""

    dataset: Dataset
    group: str
    label: str


@dataclass(frozen=True)
class FigureColumn(Column):
    """A column of figures: which difficulty and, for mP@k, which k."""

    difficulty: str
    k: str | None = None


@dataclass(frozen=True)
class Cell:
    """What one cell says, what stands below it in small, the marks of its notes, and whether it leads its column."""

    text: str
    notes: tuple[str, ...] = ()
    best: bool = False
    below: str = ""


# A row's heading and its cells, one a column.
Row = tuple[Cell, tuple[Cell, ...]]


@dataclass(frozen=True)
class Table:
    """Rows under named columns; a terminal leaves out a table that is not `brief`."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    brief: bool = True

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over runs of columns of one data set, with the number of columns under each."""
        return [(group, count) for (_, group), count in Counter((c.dataset, c.group) for c in self.columns).items()]


@dataclass(frozen=True)
class Summary:
    """A section: tables that are not empty, the notes they mark, by mark, and lines on the whole."""

    title: str
    tables: tuple[Table, ...]
    notes: Mapping[str, str]
    lines: tuple[str, ...]


@dataclass
class Footnotes:
    """Gives notes their marks in the order they are first needed."""

    marks: Sequence[str] = NUMBERS
    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """The mark of a note, the same for the same text."""
        if text not in self.texts:
            self.texts.append(text)
        return self.marks[self.texts.index(text)]

    def marked(self) -> dict[str, str]:
        """The notes by their marks."""
        return dict(zip(self.marks, self.texts, strict=False))

"""Answers for a person and for a program: a table in the terminal, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from src.library.answer import Answer


def table_of(query: str, answers: Sequence[Answer]) -> Table:
    """A query's answers, best first, with the columns that any of them has."""
    table = Table(title=Text(printable(query)), title_justify="left")
    columns = list(dict.fromkeys(key for answer in answers for key in answer.photo.metadata))
    for name in ("", "cosine", "photo", *columns):
        table.add_column(name, justify="right" if name in ("", "cosine") else "left", overflow="fold")
    for rank, answer in enumerate(answers, 1):
        shown = (printable(answer.photo.metadata.get(key, "")) for key in columns)
        name = printable(answer.photo.name) + ("" if answer.there else " (gone)")
        table.add_row(str(rank), f"{answer.cosine:.3f}", Text(name), *map(Text, shown))
    return table


def as_data(query: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "query": query,
        "score": "cosine",
        "answers": [
            {
                "rank": rank,
                "cosine": round(answer.cosine, 6),
                "photo": answer.photo.name,
                "there": answer.there,
                "metadata": dict(answer.photo.metadata),
            }
            for rank, answer in enumerate(answers, 1)
        ],
    }


def printable(text: str) -> str:
    """A name with what a terminal would act on, and what is no Unicode, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)

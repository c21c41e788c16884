"""What methods take in time and memory, and how often they fall for look-alikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from src.results.tables.columns import by_dataset, dataset_names
from src.results.tables.figures import cell_notes
from src.results.tables.model import MISSING, Card, Cell, Column, Dataset, Footnotes, Table

# Of each cost in a card, what its column is called and the factor to that unit.
COSTS = {
    "image_seconds": ("ms per image", 1000.0),
    "query_seconds": ("ms per query", 1000.0),
    "image_bytes": ("bytes per image", 1.0),
}
LOOKALIKES = "Wrong answers in the first ten, a query, and look-alike siblings among them"
TIMES = "Times hold for the machine of each run."


def cost_table(cards: Sequence[Card], headings: Sequence[Cell]) -> Table | None:
    """Time per image and per query, bytes per image; None where no card has any."""
    columns: list[Column] = []
    rows: list[list[Cell]] = [[] for _ in cards]
    for dataset, name in dataset_names(cards).items():
        costs = [_part(card, dataset).get("costs", {}) for card in cards]
        for key, (label, factor) in COSTS.items():
            if any(key in found for found in costs):
                columns.append(Column(dataset, name, label))
                for row, found in zip(rows, costs, strict=True):
                    row.append(Cell(MISSING if found.get(key) is None else readable(factor * found[key])))
    return _table("What it costs", columns, headings, rows)


def lookalike_table(cards: Sequence[Card], headings: Sequence[Cell], notes: Footnotes) -> Table | None:
    """Wrong answers, those that show a look-alike, and their share; None where no card counts them."""
    columns: list[Column] = []
    rows: list[list[Cell]] = [[] for _ in cards]
    for dataset, name in dataset_names(cards).items():
        counts = [_part(card, dataset).get("lookalikes") for card in cards]
        if any(counts):
            columns += [Column(dataset, name, label) for label in ("wrong", "look-alikes", "share, %")]
            for row, card, count in zip(rows, cards, counts, strict=True):
                marks = cell_notes(card, dataset, notes) if count else ()
                row += [Cell(text, marks) for text in _counted(count)]
    return _table(
        "Wrong answers in the first ten, a query, and look-alike siblings among them", columns, headings, rows
    )


def _counted(count: Mapping[str, float] | None) -> tuple[str, str, str]:
    if not count:
        return MISSING, MISSING, MISSING
    wrong, siblings = count["wrong"], count["siblings"]
    return f"{wrong:.2f}", f"{siblings:.2f}", f"{100 * siblings / wrong:.1f}" if wrong else MISSING


def readable(value: float) -> str:
    """Three digits, or as many as there are before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(
    title: str, columns: Sequence[Column], headings: Sequence[Cell], rows: Sequence[Sequence[Cell]]
) -> Table | None:
    if not columns:
        return None
    return Table(title, tuple(columns), tuple((head, tuple(row)) for head, row in zip(headings, rows, strict=True)))


def _part(card: Card, dataset: Dataset) -> Mapping[str, Any]:
    return by_dataset(card).get(dataset, {})

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
    """The share of wrong answers that show a look-alike; None where no card counts them."""
    columns: list[Column] = []
    rows: list[list[Cell]] = [[] for _ in cards]
    for dataset, name in dataset_names(cards).items():
        shares = [_part(card, dataset).get("lookalikes") for card in cards]
        if any(share is not None for share in shares):
            columns.append(Column(dataset, name, "look-alikes"))
            for row, card, share in zip(rows, cards, shares, strict=True):
                marks = () if share is None else cell_notes(card, dataset, notes)
                row.append(Cell(MISSING if share is None else f"{100 * share:.1f}", marks))
    return _table("Look-alike siblings among the wrong answers in the first ten, %", columns, headings, rows)


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

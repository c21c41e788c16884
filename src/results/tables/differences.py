"""How far each row is from another, in percentage points, and whether that may be chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from src.errors import InputError, some
from src.results.bootstrap import difference
from src.results.tables.columns import by_dataset, map_columns, row_names, value_of
from src.results.tables.figures import cell_notes
from src.results.tables.model import MINUS, MISSING, Card, Cell, FigureColumn, Footnotes, Table

PAIRED = "Differences are paired: both rows are drawn with the same queries. One whose interval holds 0 may be chance."
# AP per query, None where a query is left out.
AP = Sequence[float | None]


def difference_table(
    cards: Sequence[Card], headings: Sequence[Cell], notes: Footnotes, against: str | None = None
) -> Table | None:
    """Each row's mAP less that of the best row of its column, or of the row `against`, with the interval of that.

    A row of another number of queries has none, and a column in which no two rows compare is left out; so is GAP, which
    is no mean over queries. None where no column is left. Raises InputError where `against` names no row.
    """
    chosen = None if against is None else _place(cards, against)
    columns: list[FigureColumn] = []
    rows: list[list[Cell]] = [[] for _ in cards]
    for column in map_columns(cards):
        ap = [_ap(card, column) for card in cards]
        place = _best(cards, column, ap) if chosen is None else chosen
        reference = None if place is None else ap[place]
        if place is None or reference is None:
            continue
        cells = [_cell(own, reference) for own in ap]
        if sum(cell.text != MISSING for cell in cells) < 2:
            continue
        cells[place] = Cell("best" if chosen is None else "reference")
        columns.append(column)
        for row, card, cell in zip(rows, cards, cells, strict=True):
            row.append(cell if cell.text == MISSING else replace(cell, notes=cell_notes(card, column.dataset, notes)))
    if not columns:
        return None
    other = "the best of each column" if chosen is None else row_names(cards)[chosen]
    body = tuple((heading, tuple(row)) for heading, row in zip(headings, rows, strict=True))
    return Table(f"Difference to {other}, percentage points", tuple(columns), body)


def _place(cards: Sequence[Card], wanted: str) -> int:
    """The one card whose row, method or run is called so."""
    names = row_names(cards)
    found = [place for place, card in enumerate(cards) if wanted in (names[place], card["method"], card["name"])]
    if len(found) != 1:
        raise InputError(
            f"against={wanted} names {len(found) or 'no'} row{'s' if found else ''}: it is the method or the run of "
            f"one, such as {some([card['name'] for card in cards], 12)}"
        )
    return found[0]


def _ap(card: Card, column: FigureColumn) -> AP | None:
    benchmark: Mapping[str, Any] = by_dataset(card).get(column.dataset, {})
    if not benchmark or benchmark.get("measure") == "GAP" or value_of(card, column) is None:
        return None
    return benchmark["ap"].get(column.difficulty)


def _best(cards: Sequence[Card], column: FigureColumn, ap: Sequence[AP | None]) -> int | None:
    """The first row of the highest figure that comes with AP per query."""
    figures = {row: value_of(card, column) or 0.0 for row, card in enumerate(cards) if ap[row] is not None}
    return max(figures, key=lambda row: figures[row], default=None)


def _cell(own: AP | None, reference: AP) -> Cell:
    if own is None or len(own) != len(reference):
        return Cell(MISSING)
    mean, low, high = difference(own, reference)
    if not math.isfinite(mean):
        return Cell(MISSING)
    below = f"{_signed(low, 1)} to {_signed(high, 1)}" if math.isfinite(low) else MISSING
    return Cell(_signed(mean, 2), below=below)


def _signed(fraction: float, decimals: int) -> str:
    """A fraction in points with its sign; what is printed as zero has none."""
    text = f"{100 * fraction:+.{decimals}f}"
    return text[1:] if not text.strip("+-0.") else text.replace("-", MINUS)

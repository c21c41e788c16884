"""All that is said of some cards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dolglab.errors import UserError, truncate_list
from dolglab.results.statistics import difference
from dolglab.results.tables import (
    MINUS,
    MISSING,
    Card,
    Cell,
    Column,
    Dataset,
    FigureColumn,
    Footnotes,
    Summary,
    Table,
    by_dataset,
    cell_notes,
    dataset_lines,
    dataset_names,
    interval_lines,
    map_columns,
    map_table,
    precision_tables,
    protocol_lines,
    row_names,
    value_of,
)

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


PAIRED = "Differences are paired: both rows are drawn with the same queries. One whose interval holds 0 may be chance."
# AP per query, None where a query is left out.
AP = Sequence[float | None]


def difference_table(
    cards: Sequence[Card], headings: Sequence[Cell], notes: Footnotes, against: str | None = None
) -> Table | None:
    """Each row's mAP less that of the best row of its column, or of the row `against`, with the interval of that.

    A row of another number of queries has none, and a column in which no two rows compare is left out; so is GAP, which
    is no mean over queries. None where no column is left. Raises UserError where `against` names no row.
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
        raise UserError(
            f"against={wanted} names {len(found) or 'no'} row{'s' if found else ''}: it is the method or the run of "
            f"one, such as {truncate_list([card['name'] for card in cards], 12)}"
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


def summarize(cards: Sequence[Card], against: str | None = None) -> Summary:
    """The tables of mAP, its differences (to `against`, or the best), costs, look-alikes and mP@k, with what qualifies.

    What all rows' protocols share is a line under the tables; what differs is a note on each row. Raises UserError
    where `against` names no row.
    """
    shared, own = protocol_lines(cards)
    notes = Footnotes()
    headings = [
        Cell(name, (notes.mark(protocol),) if protocol else ())
        for name, protocol in zip(row_names(cards), own, strict=True)
    ]
    figures = map_table(cards, headings, notes) if map_columns(cards) else None
    differences = difference_table(cards, headings, notes, against)
    costs = cost_table(cards, headings)
    lookalikes = lookalike_table(cards, headings, notes)
    tables = [figures, differences, costs, lookalikes, *precision_tables(cards, headings, notes)]
    said = "Protocol, the same in all rows" if any(own) else "Protocol"
    lines = [
        *([f"{said}: {shared}"] if shared else []),
        *interval_lines(cards),
        *([PAIRED] if differences else []),
        *([TIMES] if costs else []),
        *dataset_lines(cards),
    ]
    return Summary("Results", tuple(table for table in tables if table), notes.marked(), tuple(lines))

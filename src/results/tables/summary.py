"""All that is said of some cards."""

from __future__ import annotations

from collections.abc import Sequence

from src.results.tables.columns import map_columns, row_names
from src.results.tables.costs import TIMES, cost_table, lookalike_table
from src.results.tables.differences import PAIRED, difference_table
from src.results.tables.figures import interval_lines, map_table, precision_tables
from src.results.tables.model import Card, Cell, Footnotes, Summary
from src.results.tables.protocol import dataset_lines, protocol_lines


def summarize(cards: Sequence[Card], against: str | None = None) -> Summary:
    """The tables of mAP, its differences (to `against`, or the best), costs, look-alikes and mP@k, with what qualifies.

    What all rows' protocols share is a line under the tables; what differs is a note on each row. Raises InputError
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

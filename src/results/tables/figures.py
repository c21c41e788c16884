"""Tables of figures in percent: mAP with its intervals, mP@k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from src.results.bootstrap import DRAWS
from src.results.card import labels, map_intervals
from src.results.tables.columns import by_dataset, map_columns, precision_columns, value_of
from src.results.tables.model import MISSING, Card, Cell, Dataset, FigureColumn, Footnotes, Row, Table

INTERVALS = f"With each mAP stands its 95 % interval: percentile bootstrap over the queries, {DRAWS:,} draws."
GAP = "GAP is measured on one list of all queries' answers; it is no mean over queries, and has no interval."


def map_table(cards: Sequence[Card], headings: Sequence[Cell], notes: Footnotes) -> Table:
    """mAP by data set and difficulty, each figure with its interval."""
    columns = map_columns(cards)
    rows = [
        [replace(_cell(card, column, notes, 2), below=_interval(card, column)) for column in columns] for card in cards
    ]
    return Table("Mean average precision, %", columns, with_best(headings, rows))


def precision_tables(cards: Sequence[Card], headings: Sequence[Cell], notes: Footnotes) -> list[Table]:
    """mP@k, a table a data set."""
    tables: list[Table] = []
    for title, columns in precision_columns(cards).items():
        rows = [[_cell(card, column, notes, 1) for column in columns] for card in cards]
        tables.append(Table(title, columns, with_best(headings, rows), brief=False))
    return tables


def interval_lines(cards: Sequence[Card]) -> list[str]:
    """What the intervals are, and what has none."""
    gap = {benchmark.get("measure") == "GAP" for card in cards for benchmark in card["benchmarks"]}
    return [*([INTERVALS] if False in gap else []), *([GAP] if True in gap else [])]


def with_best(headings: Sequence[Cell], rows: Sequence[Sequence[Cell]]) -> tuple[Row, ...]:
    """Rows in which the highest of each column's figures is marked, if there are two; what reads alike is alike."""
    best = [_best([cell.text for cell in column]) for column in zip(*rows, strict=True)]
    return tuple(
        (heading, tuple(replace(cell, best=cell.text == leader) for cell, leader in zip(row, best, strict=True)))
        for heading, row in zip(headings, rows, strict=True)
    )


def cell_notes(card: Card, dataset: Dataset, notes: Footnotes) -> tuple[str, ...]:
    """The marks of what sets the card's figures on a data set apart."""
    marks = [notes.mark(label) for label in labels(card, by_dataset(card)[dataset])]
    return tuple(sorted(marks, key=notes.marks.index))


def _cell(card: Card, column: FigureColumn, notes: Footnotes, decimals: int) -> Cell:
    value = value_of(card, column)
    if value is None:
        return Cell(MISSING)
    return Cell(f"{100 * value:.{decimals}f}", cell_notes(card, column.dataset, notes))


def _interval(card: Card, column: FigureColumn) -> str:
    """The figure's interval; a dash where it is of too few queries, nothing where there can be none."""
    intervals = map_intervals(by_dataset(card).get(column.dataset, {"measure": "GAP"}))
    if column.difficulty not in intervals or value_of(card, column) is None:
        return ""
    found = intervals[column.difficulty]
    return MISSING if found is None else f"{100 * found[0]:.1f}{MISSING}{100 * found[1]:.1f}"


def _best(texts: Sequence[str]) -> str | None:
    figures = [text for text in texts if text != MISSING]
    return max(figures, key=float) if len(figures) > 1 else None

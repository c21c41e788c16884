"""The tables that compare cards, with notes on their figures."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dolglab.bootstrap import DRAWS, difference
from dolglab.errors import UserError, truncate_list
from dolglab.results.card import in_sentence, map_intervals
from dolglab.results.tables import (
    AP,
    COSTS,
    MINUS,
    MISSING,
    Card,
    Cell,
    Column,
    Footnotes,
    Summary,
    Table,
    ap_of,
    benchmark_of,
    cell_notes,
    dataset_lines,
    dataset_names,
    main_columns,
    make_table,
    map_columns,
    mark_best,
    measure_of,
    protocol_lines,
    row_names,
    value_of,
)

INTERVALS = f"Each {{}} has a 95 % interval: percentile bootstrap over the queries, {DRAWS:,} draws."
GAP = "GAP is measured on one list of all queries' answers. It is not a mean over queries and has no interval."
PAIRED = "Differences are paired by query. If the interval of a difference contains 0, it may be due to chance."
TIMES = "Times were measured on the machine of each run."


def summarize(cards: Sequence[Card], against: str | None = None) -> Summary:
    """The tables of mAP, differences (to `against`, or the best), costs, look-alikes and mP@k, with notes.

    The common part of the protocols is a line below the tables; differences are notes on rows. Raises UserError if
    `against` is not a row.
    """
    shared, own = protocol_lines(cards)
    notes = Footnotes()
    headings = [
        Cell(name, notes.mark(protocol) if protocol else ())
        for name, protocol in zip(row_names(cards), own, strict=True)
    ]
    measures = {benchmark.get("measure", "mAP") for card in cards for benchmark in card["benchmarks"]}
    only_map = all(measure.startswith("mAP") or measure == "GAP" for measure in measures)
    title = "Mean average precision, %" if only_map else "Figures, %"
    figures = figure_table(title, cards, map_columns(cards), headings, notes)
    differences = difference_table(cards, headings, notes, against)
    costs = cost_table(cards, headings)
    lookalikes = lookalike_table(cards, headings, notes)
    tables = [figures, differences, costs, lookalikes, *precision_tables(cards, headings, notes)]
    lines = {
        f"{'Protocol, the same in all rows' if any(own) else 'Protocol'}: {shared}.": bool(shared),
        INTERVALS.format("mAP" if only_map else "mean over queries"): bool(measures - {"GAP"}),
        GAP: "GAP" in measures,
        PAIRED: bool(differences.columns),
        TIMES: bool(costs.columns),
    }
    return Summary(
        "Results",
        tuple(table for table in tables if table.columns),
        notes.texts(),
        (*(line for line, holds in lines.items() if holds), *dataset_lines(cards)),
        tuple(leader_lines(cards)),
    )


def leader_lines(cards: Sequence[Card]) -> list[str]:
    """A sentence for each data set (Medium if it has that): which row is best, or that the first two cannot be told
    apart, with the difference and its interval. For a single row, its figure.
    """
    lines = []
    for column in main_columns(cards).values():
        rows = [
            (value, name, card)
            for name, card in zip(row_names(cards), cards, strict=True)
            if (value := value_of(card, column)) is not None
        ]
        ranked = sorted(rows, key=lambda row: row[0], reverse=True)
        figures = [f"{name} ({100 * value:.2f} %)" for value, name, _ in ranked[:2]]
        said = ""
        if len(ranked) == 1:
            said = f"{100 * ranked[0][0]:.2f} % by {ranked[0][1]}{_interval(ranked[0][2], column)}"
        elif ranked:
            said = _first_two(figures, *(ap_of(card, column) for *_, card in ranked[:2]))
        lines += [f"{measure_of(column)} on {in_sentence(column.group)}: {said}."] if said else []
    return lines


def _first_two(figures: Sequence[str], best: AP | None, other: AP | None) -> str:
    """A comparison of the best two rows by the interval of their difference."""
    alone = f"{figures[0]} is ahead of {figures[1]}: they cannot be paired by query, so there is no interval"
    if best is None or other is None or len(best) != len(other):
        return alone
    mean, low, high = difference(best, other)
    if not math.isfinite(mean):
        return alone
    apart = f"{_signed(mean, 2)} points"
    if not math.isfinite(low) and not mean:
        return f"{figures[0]} and {figures[1]} are equal"
    if not math.isfinite(low):
        return f"{figures[0]} is ahead of {figures[1]}: {apart}, with too few queries for an interval"
    queries = sum(one is not None and two is not None for one, two in zip(best, other, strict=True))
    apart += f", 95 % interval {_signed(low, 2)} to {_signed(high, 2)}, {queries:,} queries"
    if low > 0:
        return f"{figures[0]} is best, ahead of {figures[1]}: {apart}"
    return f"{figures[0]} and {figures[1]} cannot be told apart: {apart}"


def _interval(card: Card, column: Column) -> str:
    """The interval of the card's figure in words; empty if there is none."""
    bounds = map_intervals(benchmark_of(card, column.dataset)).get(column.difficulty)
    return f", 95 % interval {100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}" if bounds else ""


def validation_line(card: Card) -> list[str]:
    """How the weights of a training were selected: by validation, with its figure if the card has it, or not.

    The figure is in the card of the training, not in those of later evaluations. Empty without a training.
    """
    if not card.get("training"):
        return []
    sets = ", ".join(map(in_sentence, card["protocol"].get("selection", {})))
    if card.get("validation_map") is not None:
        best = f"Validation mAP {100 * card['validation_map']:.2f} %" + (f" on {sets}" if sets else "")
        return [f"{best} at the best epoch, whose weights were selected."]
    if sets:
        return [f"The weights were selected by validation on {sets}; its mAP is in the card of their training."]
    return ["The weights were not selected by validation: they are those of the last checkpoint."]


def precision_tables(cards: Sequence[Card], headings: Sequence[Cell], notes: Footnotes) -> list[Table]:
    """mP@k, a table per data set; not printed in a terminal."""
    tables: dict[str, list[Column]] = defaultdict(list)
    for column in map_columns(cards):
        difficulty = "" if column.label == "mAP" else f"{column.label} "
        figures = [benchmark_of(card, column.dataset).get("mp_at_k", {}).get(column.difficulty, {}) for card in cards]
        tables[f"Mean precision at k on {in_sentence(column.group)}, %"] += [
            Column(column.dataset, "", f"{difficulty}@{k}", column.difficulty, k)
            for k in sorted(set[str]().union(*figures), key=int)
        ]
    return [figure_table(title, cards, columns, headings, notes, brief=False) for title, columns in tables.items()]


def figure_table(
    title: str,
    cards: Sequence[Card],
    columns: Sequence[Column],
    headings: Sequence[Cell],
    notes: Footnotes,
    brief: bool = True,
) -> Table:
    """The cards' figures in percent with notes, numbered row by row; the best of each column is marked."""
    rows = [[_figure(card, column, notes) for column in columns] for card in cards]
    cells = map(mark_best, zip(*rows, strict=True))
    return make_table(title, headings, dict(zip(columns, cells, strict=True)), brief)


def _figure(card: Card, column: Column, notes: Footnotes) -> Cell:
    """The card's figure; mAP has its interval, or a dash if there are too few queries."""
    value = value_of(card, column)
    if value is None:
        return Cell(MISSING)
    marks = cell_notes(card, column.dataset, notes)
    if column.k is not None:
        return Cell(f"{100 * value:.1f}", marks)
    below = ""
    intervals = map_intervals(benchmark_of(card, column.dataset))
    if column.difficulty in intervals:
        interval = intervals[column.difficulty]
        below = MISSING if interval is None else f"{100 * interval[0]:.1f}{MISSING}{100 * interval[1]:.1f}"
    return Cell(f"{100 * value:.2f}", marks, below=below)


def cost_table(cards: Sequence[Card], headings: Sequence[Cell]) -> Table:
    """Time per image and per query, bytes per image; a column for each cost that a card has."""
    columns: dict[Column, list[Cell]] = {}
    for dataset, name in dataset_names(cards).items():
        costs = [benchmark_of(card, dataset).get("costs", {}) for card in cards]
        for key, (*_, label, factor) in COSTS.items():
            if any(key in cost for cost in costs):
                columns[Column(dataset, name, label)] = [
                    Cell(MISSING if cost.get(key) is None else three_digits(factor * cost[key])) for cost in costs
                ]
    return make_table("What it costs", headings, columns)


def three_digits(value: float) -> str:
    """Three digits, or all digits before the point.

    >>> three_digits(0.012345), three_digits(1234.5)
    ('0.0123', '1,234')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def lookalike_table(cards: Sequence[Card], headings: Sequence[Cell], notes: Footnotes) -> Table:
    """Wrong answers, those that show a look-alike, and their share, for each data set with such counts."""
    columns: dict[Column, list[Cell]] = {}
    for dataset, name in dataset_names(cards).items():
        counts = [benchmark_of(card, dataset).get("lookalikes") for card in cards]
        if any(counts):
            marks = [cell_notes(card, dataset, notes) if c else () for card, c in zip(cards, counts, strict=True)]
            texts = zip(*map(_lookalikes, counts), strict=True)
            for label, column in zip(("wrong", "look-alikes", "share, %"), texts, strict=True):
                columns[Column(dataset, name, label)] = list(map(Cell, column, marks))
    return make_table("Wrong answers among the first ten, per query, and look-alikes among them", headings, columns)


def _lookalikes(counts: Mapping[str, float] | None) -> tuple[str, str, str]:
    if not counts:
        return MISSING, MISSING, MISSING
    wrong, siblings = counts["wrong"], counts["siblings"]
    return f"{wrong:.2f}", f"{siblings:.2f}", f"{100 * siblings / wrong:.1f}" if wrong else MISSING


def difference_table(
    cards: Sequence[Card], headings: Sequence[Cell], notes: Footnotes, against: str | None = None
) -> Table:
    """Each row's mAP minus that of the best row of its column, or of the row `against`, with the interval.

    Rows with another number of queries have none. Columns in which no two rows compare are left out, and so is GAP,
    which is not a mean over queries. Raises UserError if `against` is not a row.
    """
    chosen = None if against is None else _row_called(cards, against)
    columns: dict[Column, list[Cell]] = {}
    for column in map_columns(cards):
        ap = [ap_of(card, column) for card in cards]
        # The first row with the highest figure, among those with AP per query.
        figures = {row: value_of(card, column) or 0.0 for row, card in enumerate(cards) if ap[row] is not None}
        row = max(figures, key=lambda row: figures[row], default=None) if chosen is None else chosen
        reference = None if row is None else ap[row]
        if row is None or reference is None:
            continue
        cells = [_difference(own, reference) for own in ap]
        if sum(cell.text != MISSING for cell in cells) < 2:
            continue
        cells[row] = Cell("best" if chosen is None else "reference")
        columns[column] = [
            cell if cell.text == MISSING else replace(cell, notes=cell_notes(card, column.dataset, notes))
            for card, cell in zip(cards, cells, strict=True)
        ]
    other = "the best of each column" if chosen is None else row_names(cards)[chosen]
    return make_table(f"Difference to {other}, percentage points", headings, columns)


def _row_called(cards: Sequence[Card], wanted: str) -> int:
    """The only row with this row name, method or run."""
    names = row_names(cards)
    rows = [row for row, card in enumerate(cards) if wanted in (names[row], card["method"], card["name"])]
    if len(rows) != 1:
        raise UserError(
            f"against={wanted} matches {len(rows) or 'no'} row{'s' if rows else ''}: set it to the method or "
            f"run of one, such as {truncate_list([card['name'] for card in cards], 12)}"
        )
    return rows[0]


def _difference(own: AP | None, reference: AP) -> Cell:
    if own is None or len(own) != len(reference):
        return Cell(MISSING)
    mean, low, high = difference(own, reference)
    if not math.isfinite(mean):
        return Cell(MISSING)
    below = f"{_signed(low, 1)} to {_signed(high, 1)}" if math.isfinite(low) else MISSING
    return Cell(_signed(mean, 2), below=below)


def _signed(fraction: float, decimals: int) -> str:
    """A fraction in points with its sign; zero has none."""
    text = f"{100 * fraction:+.{decimals}f}"
    return text[1:] if not text.strip("+-0.") else text.replace("-", MINUS)

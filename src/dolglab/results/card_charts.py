"""Charts of cards: figures with intervals, precision against recall, and accuracy against cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dolglab.io import write_text
from dolglab.results.card import caveats, map_intervals
from dolglab.results.chart_frames import Axis
from dolglab.results.charts import MAX_LINES, Drawing, IntervalChart, LineChart, PointChart, as_file
from dolglab.results.metrics_log import Series
from dolglab.results.tables import (
    COSTS,
    Card,
    Column,
    Dataset,
    benchmark_of,
    dataset_names,
    main_columns,
    map_columns,
    measure_of,
    row_names,
    value_of,
)

# Largest number of rows in a chart of intervals, and of points in a chart of costs; the best are drawn.
MAX_ROWS, MAX_POINTS = 30, 60


@dataclass(frozen=True)
class Chart:
    """A drawing with its title, and a note on what limits its comparison."""

    title: str
    drawing: Drawing
    note: str = ""


@dataclass(frozen=True)
class ChartSection:
    """Charts of one kind, with a hint on how to read them."""

    title: str
    hint: str
    charts: tuple[Chart, ...]


def chart_sections(cards: Sequence[Card]) -> list[ChartSection]:
    """The sections for which these cards have charts."""
    sections = [
        ChartSection(
            "Figures and intervals",
            "The line through a dot is its 95 % interval. Methods whose intervals overlap may still differ: the table "
            "of differences compares them query by query.",
            tuple(interval_charts(cards)),
        ),
        ChartSection(
            "Precision and recall",
            "The highest precision at each recall or above (interpolated, 101 points), averaged over queries.",
            tuple(precision_recall_charts(cards)),
        ),
        ChartSection("Accuracy and cost", "Towards the top left is better.", tuple(tradeoff_charts(cards))),
    ]
    return [section for section in sections if section.charts]


def write_charts(folder: Path, sections: Sequence[ChartSection]) -> list[Path]:
    """Write each chart to its own file, such as `precision_and_recall_demo_medium.svg`."""
    return [
        write_text(
            folder / f"{file_stem(f'{section.title} {chart.title}')}.svg",
            as_file(chart.drawing, f"{section.title}: {chart.title}", chart.note),
        )
        for section in sections
        for chart in section.charts
    ]


def file_stem(title: str) -> str:
    """A title as a file name: letters, digits and underscores.

    >>> file_stem("A/b: c (d), 5 %")
    'a_b_c_d_5'
    """
    return re.sub(r"\W+", "_", title.lower()).strip("_")


def interval_charts(cards: Sequence[Card]) -> Iterator[Chart]:
    """A chart for each data set on which two or more cards have figures, the best first; Medium if there is one."""
    names = row_names(cards)
    for dataset, column in main_columns(cards).items():
        figures = {row: value for row, card in enumerate(cards) if (value := value_of(card, column)) is not None}
        if len(figures) < 2:
            continue
        rows = sorted(figures, key=lambda row: -figures[row])
        bounds = [map_intervals(benchmark_of(cards[row], dataset)).get(column.difficulty) for row in rows]
        drawn = tuple(
            (names[row], 100 * figures[row], (100 * ends[0], 100 * ends[1]) if ends else None)
            for row, ends in zip(rows, bounds, strict=True)
        )[:MAX_ROWS]
        note = _note(cards, rows[:MAX_ROWS], dataset)
        yield Chart(
            f"{column.group}: {measure_of(column)}",
            IntervalChart(drawn, Axis(f"{measure_of(column)}, %")),
            _and_best(note, len(drawn), len(rows)),
        )


def precision_recall_charts(cards: Sequence[Card]) -> Iterator[Chart]:
    """One card: a chart per data set, a line per difficulty. Several: a chart per difficulty, a line per card."""
    names = row_names(cards)
    for dataset, dataset_name in dataset_names(cards).items():
        curves = {column: _curves(cards, column) for column in map_columns(cards) if column.dataset == dataset}
        curves = {column: by_row for column, by_row in curves.items() if by_row}
        rows = {row for by_row in curves.values() for row in by_row}
        if len(rows) == 1:
            (row,) = rows
            title = dataset_name if len(cards) == 1 else f"{names[row]}: {dataset_name}"
            lines = {column.label: by_row[row] for column, by_row in curves.items()}
            yield Chart(title, _recall_chart(lines), _note(cards, [row], dataset))
            continue
        for column, by_row in curves.items():
            title = dataset_name if column.label == "mAP" else f"{dataset_name}, {column.label}"
            best = sorted(by_row, key=lambda row: -(value_of(cards[row], column) or 0))[:MAX_LINES]
            lines = {names[row]: by_row[row] for row in sorted(best)}
            note = _note(cards, sorted(best), dataset)
            yield Chart(title, _recall_chart(lines), _and_best(note, len(best), len(by_row)))


def _curves(cards: Sequence[Card], column: Column) -> dict[int, list[float]]:
    """Each card's precision at recall 0, 0.01, ..., 1, by row; a curve with gaps is left out."""
    curves = {
        row: benchmark_of(card, column.dataset).get("precision_recall", {}).get(column.difficulty)
        for row, card in enumerate(cards)
    }
    return {row: curve for row, curve in curves.items() if curve is not None and None not in curve}


def _recall_chart(lines: Mapping[str, Sequence[float]]) -> LineChart:
    percent = {
        name: Series([float(step) for step in range(len(curve))], [100 * value for value in curve])
        for name, curve in lines.items()
    }
    return LineChart(percent, Axis("recall, %", (0, 100)), Axis("precision, %", (0, 100)))


def tradeoff_charts(cards: Sequence[Card]) -> Iterator[Chart]:
    """mAP (Medium if there is one) against each cost that at least two cards have."""
    names = row_names(cards)
    for dataset, column in main_columns(cards).items():
        for key, (cost_name, xlabel, *_) in COSTS.items():
            costs = [benchmark_of(card, dataset).get("costs", {}).get(key) for card in cards]
            values = [value_of(card, column) for card in cards]
            points = {
                row: (names[row], cost, 100 * value)
                for row, (cost, value) in enumerate(zip(costs, values, strict=True))
                if cost and value is not None
            }
            if len(points) > 1:
                best = sorted(points, key=lambda row: -points[row][2])[:MAX_POINTS]
                drawn = tuple(points[row] for row in sorted(best))
                yield Chart(
                    f"{column.group}: {measure_of(column)} against {cost_name}",
                    PointChart(drawn, Axis(xlabel, log=True), Axis(f"{measure_of(column)}, %")),
                    _and_best(_note(cards, sorted(best), dataset), len(best), len(points)),
                )


def _and_best(note: str, drawn: int, there: int) -> str:
    """The note, preceded by how many were left out."""
    left_out = f"the best {drawn} of {there}" if drawn < there else ""
    return "; ".join(part for part in (left_out, note) if part)


def _note(cards: Sequence[Card], rows: Sequence[int], dataset: Dataset) -> str:
    """Notes on the figures of the drawn cards: those that apply to all, then those of each card."""
    names = row_names(cards)
    notes = {row: caveats(cards[row], benchmark_of(cards[row], dataset)) for row in rows}
    common = [note for note in notes[rows[0]] if all(note in others for others in notes.values())]
    own = {row: [note for note in texts if note not in common] for row, texts in notes.items()}
    return "; ".join([*common, *(f"{names[row]}: {', '.join(texts)}" for row, texts in own.items() if texts)])

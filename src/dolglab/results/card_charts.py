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

# Rows of a chart of intervals, and points of one of costs: of more the best are drawn.
MAX_ROWS, MAX_POINTS = 30, 60


@dataclass(frozen=True)
class Chart:
    """A drawing, its title, and a line on what sets its figures apart."""

    title: str
    drawing: Drawing
    note: str = ""


@dataclass(frozen=True)
class ChartSection:
    """Charts of one kind: what they show, and how they are read."""

    title: str
    hint: str
    charts: tuple[Chart, ...]


def chart_sections(cards: Sequence[Card]) -> list[ChartSection]:
    """The sections that these cards have charts for."""
    sections = [
        ChartSection(
            "Figures and intervals",
            "The line around a dot is its 95 % interval. Two methods whose lines overlap may still differ: the table "
            "of differences compares them query by query.",
            tuple(interval_charts(cards)),
        ),
        ChartSection(
            "Precision and recall",
            "The highest precision at each recall or beyond (interpolated, 101 points), mean over queries.",
            tuple(precision_recall_charts(cards)),
        ),
        ChartSection("Accuracy and cost", "Up and to the left is better.", tuple(tradeoff_charts(cards))),
    ]
    return [section for section in sections if section.charts]


def write_charts(folder: Path, sections: Sequence[ChartSection]) -> list[Path]:
    """Each chart as a file of its own, such as `precision_and_recall_demo_medium.svg`."""
    return [
        write_text(
            folder / f"{file_stem(f'{section.title} {chart.title}')}.svg",
            as_file(chart.drawing, f"{section.title}: {chart.title}", chart.note),
        )
        for section in sections
        for chart in section.charts
    ]


def file_stem(title: str) -> str:
    """A title as the name of a file: letters, digits and underscores.

    >>> file_stem("A/b: c (d), 5 %")
    'a_b_c_d_5'
    """
    return re.sub(r"\W+", "_", title.lower()).strip("_")


def interval_charts(cards: Sequence[Card]) -> Iterator[Chart]:
    """A chart a data set that two cards or more have figures on, the best first; Medium where there is one."""
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
    """A chart a data set with a line a difficulty; of several cards a chart a difficulty with a line a card."""
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
    """By the card's row, its precision at recall 0, 0.01, ..., 1; a curve with gaps is left out."""
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
    """mAP against each cost, Medium where there is one; a chart needs two cards with that cost."""
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
    """The note, after a word on what was left out."""
    left_out = f"the best {drawn} of {there}" if drawn < there else ""
    return "; ".join(part for part in (left_out, note) if part)


def _note(cards: Sequence[Card], rows: Sequence[int], dataset: Dataset) -> str:
    """What sets the drawn cards' figures apart: what holds for all, then what holds for each."""
    names = row_names(cards)
    notes = {row: caveats(cards[row], benchmark_of(cards[row], dataset)) for row in rows}
    common = [note for note in notes[rows[0]] if all(note in others for others in notes.values())]
    own = {row: [note for note in texts if note not in common] for row, texts in notes.items()}
    return "; ".join([*common, *(f"{names[row]}: {', '.join(texts)}" for row, texts in own.items() if texts)])

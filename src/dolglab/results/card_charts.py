"""Charts of what cards say: precision against recall, and what methods cost against what they are worth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dolglab.io import write_text
from dolglab.results.card import labels
from dolglab.results.charts import Series, line_chart, standalone, tradeoff_svg
from dolglab.results.tables import (
    Card,
    Dataset,
    FigureColumn,
    by_dataset,
    dataset_names,
    map_columns,
    row_names,
    value_of,
)

COST_AXES = {
    "image_seconds": ("time per image", "seconds per image"),
    "query_seconds": ("time per query", "seconds per query"),
    "image_bytes": ("memory per image", "bytes per image"),
}


@dataclass(frozen=True)
class Chart:
    """An SVG element, its title, and a line on what sets its figures apart."""

    title: str
    svg: str
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
            standalone(chart.svg, f"{section.title}: {chart.title}", chart.note),
        )
        for section in sections
        for chart in section.charts
    ]


def file_stem(title: str) -> str:
    """A title as the name of a file: letters, digits and underscores."""
    return re.sub(r"\W+", "_", title.lower()).strip("_")


def precision_recall_charts(cards: Sequence[Card]) -> list[Chart]:
    """A chart a data set with a line a difficulty; of several cards a chart a difficulty with a line a card."""
    charts: list[Chart] = []
    for dataset, name in dataset_names(cards).items():
        columns = [column for column in map_columns(cards) if column.dataset == dataset]
        found = {column: _curves(cards, column) for column in columns}
        drawn = {place for curves in found.values() for place in curves}
        if len(drawn) == 1:
            place = drawn.pop()
            lines = {column.label: curves[place] for column, curves in found.items() if curves}
            title = name if len(cards) == 1 else f"{row_names(cards)[place]}: {name}"
            charts.append(Chart(title, _recall_chart(lines), _note(cards, [place], dataset)))
            continue
        for column, curves in found.items():
            if curves:
                title = name if column.label == "mAP" else f"{name}, {column.label}"
                lines = {row_names(cards)[place]: curve for place, curve in curves.items()}
                charts.append(Chart(title, _recall_chart(lines), _note(cards, list(curves), dataset)))
    return charts


def tradeoff_charts(cards: Sequence[Card]) -> list[Chart]:
    """mAP against each cost, Medium where there is one; a chart needs two cards with that cost."""
    charts: list[Chart] = []
    for dataset, name in dataset_names(cards).items():
        columns = {column.difficulty: column for column in map_columns(cards) if column.dataset == dataset}
        column = columns.get("medium") or next(iter(columns.values()), None)
        if column is None:
            continue
        measure = column.label if "AP" in column.label else f"{column.label} mAP"
        for key, (against, across) in COST_AXES.items():
            points = _points(cards, column, key)
            if len(points) > 1:
                svg = tradeoff_svg(
                    [(row_names(cards)[place], *point) for place, point in points.items()], across, f"{measure}, %"
                )
                charts.append(Chart(f"{name}: {measure} against {against}", svg, _note(cards, list(points), dataset)))
    return charts


def _curves(cards: Sequence[Card], column: FigureColumn) -> dict[int, list[float]]:
    """By the card's place, its precision at recall 0, 0.01, ..., 1."""
    kept = {
        place: by_dataset(card).get(column.dataset, {}).get("precision_recall", {}) for place, card in enumerate(cards)
    }
    curves = {place: found[column.difficulty] for place, found in kept.items() if column.difficulty in found}
    return {place: curve for place, curve in curves.items() if None not in curve}


def _recall_chart(lines: Mapping[str, Sequence[float]]) -> str:
    series = {
        name: Series([float(recall) for recall in range(len(curve))], list(curve)) for name, curve in lines.items()
    }
    return line_chart(series, "precision, %", 100, across="recall, %", bounds=(0, 100))


def _points(cards: Sequence[Card], column: FigureColumn, key: str) -> dict[int, tuple[float, float]]:
    """By the card's place, its cost and its figure, where it has both."""
    found = {
        place: (by_dataset(card).get(column.dataset, {}).get("costs", {}).get(key), value_of(card, column))
        for place, card in enumerate(cards)
    }
    return {place: (cost, value) for place, (cost, value) in found.items() if cost and value is not None}


def _note(cards: Sequence[Card], places: Sequence[int], dataset: Dataset) -> str:
    """What sets the drawn cards' figures apart: what holds for all, then what holds for each."""
    names = row_names(cards)
    notes = {place: labels(cards[place], by_dataset(cards[place])[dataset]) for place in places}
    common = [note for note in notes[places[0]] if all(note in others for others in notes.values())]
    own = {place: [note for note in found if note not in common] for place, found in notes.items()}
    return "; ".join([*common, *(f"{names[place]}: {', '.join(found)}" for place, found in own.items() if found)])

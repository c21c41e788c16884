"""Charts of runs: their training, their precision against recall, and what they cost against what they are worth."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dolglab.contracts import DIFFICULTIES
from dolglab.io import write_text
from dolglab.results.card import caveats
from dolglab.results.charts import Series, line_chart, read_series, standalone, tradeoff_chart
from dolglab.results.tables import (
    COSTS,
    Card,
    Column,
    Dataset,
    benchmark_of,
    dataset_names,
    map_columns,
    row_names,
    value_of,
)


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
    """A title as the name of a file: letters, digits and underscores.

    >>> file_stem("A/b: c (d), 5 %")
    'a_b_c_d_5'
    """
    return re.sub(r"\W+", "_", title.lower()).strip("_")


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
            lines = {names[row]: curve for row, curve in by_row.items()}
            yield Chart(title, _recall_chart(lines), _note(cards, list(by_row), dataset))


def _curves(cards: Sequence[Card], column: Column) -> dict[int, list[float]]:
    """By the card's row, its precision at recall 0, 0.01, ..., 1; a curve with gaps is left out."""
    curves = {
        row: benchmark_of(card, column.dataset).get("precision_recall", {}).get(column.difficulty)
        for row, card in enumerate(cards)
    }
    return {row: curve for row, curve in curves.items() if curve is not None and None not in curve}


def _recall_chart(lines: Mapping[str, Sequence[float]]) -> str:
    series = {name: Series(list(map(float, range(len(curve)))), list(curve)) for name, curve in lines.items()}
    return line_chart(series, "precision, %", 100, xlabel="recall, %", bounds=(0, 100))


def tradeoff_charts(cards: Sequence[Card]) -> Iterator[Chart]:
    """mAP against each cost, Medium where there is one; a chart needs two cards with that cost."""
    names = row_names(cards)
    for dataset, dataset_name in dataset_names(cards).items():
        columns = {column.difficulty: column for column in map_columns(cards) if column.dataset == dataset}
        column = columns.get("medium") or next(iter(columns.values()), None)
        if column is None:
            continue
        measure = column.label if "AP" in column.label else f"{column.label} mAP"
        for key, (cost_name, xlabel, *_) in COSTS.items():
            costs = [benchmark_of(card, dataset).get("costs", {}).get(key) for card in cards]
            values = [value_of(card, column) for card in cards]
            points = {
                row: (names[row], cost, value)
                for row, (cost, value) in enumerate(zip(costs, values, strict=True))
                if cost and value is not None
            }
            if len(points) > 1:
                svg = tradeoff_chart(list(points.values()), xlabel, f"{measure}, %")
                title = f"{dataset_name}: {measure} against {cost_name}"
                yield Chart(title, svg, _note(cards, list(points), dataset))


def _note(cards: Sequence[Card], rows: Sequence[int], dataset: Dataset) -> str:
    """What sets the drawn cards' figures apart: what holds for all, then what holds for each."""
    names = row_names(cards)
    notes = {row: caveats(cards[row], benchmark_of(cards[row], dataset)) for row in rows}
    common = [note for note in notes[rows[0]] if all(note in others for others in notes.values())]
    own = {row: [note for note in texts if note not in common] for row, texts in notes.items()}
    return "; ".join([*common, *(f"{names[row]}: {', '.join(texts)}" for row, texts in own.items() if texts)])


@dataclass(frozen=True)
class MetricChart:
    """A chart of the metrics whose names match `pattern`: a line a `label`, and a chart a `set`."""

    title: str
    pattern: str
    unit: str = ""
    factor: float = 1.0


METRIC_CHARTS = (
    MetricChart("Loss", r"(?P<label>(?:.+/)?loss(?:_step|_epoch)?)"),
    MetricChart("Validation mAP", r"val(?:idation)?/(?:(?P<set>.+)/)?(?P<label>easy|medium|hard|map)", "%", 100),
    MetricChart("Training accuracy", r"train/(?P<label>accuracy)", "%", 100),
    MetricChart("Cosine to the class weights", r"(?:.+/)?(?P<label>\w*cosine\w*)"),
    MetricChart("GeM exponent p", r"(?:.+/)?(?P<label>p)"),
    MetricChart("Learning rate", r"(?:.+/)?(?P<label>lr|lr-.+|learning_rate)"),
    MetricChart("Throughput", r"(?:.+/)?(?P<label>images_per_second)(?:_step)?", "images/s"),
)


def training_charts(run: Path) -> list[Chart]:
    """Charts of a run's metrics.csv; none where the run has none, or no data for any.

    Validation mAP and accuracy are read as fractions and drawn in percent, difficulties from easy to hard. The same
    file always gives the same text. Raises UserError when it is not a metrics file.
    """
    path = run / "metrics.csv"
    series = read_series(path) if path.exists() else {}
    order = {difficulty: position for position, difficulty in enumerate(DIFFICULTIES)}
    charts: list[Chart] = []
    for chart in METRIC_CHARTS:
        by_title: dict[str, dict[str, Series]] = {}
        matches = [match for name in series if (match := re.fullmatch(chart.pattern, name))]
        for match in sorted(matches, key=lambda match: order.get(match["label"], 0)):
            dataset = match.groupdict().get("set")
            title = f"{chart.title}, {dataset}" if dataset else chart.title
            by_title.setdefault(title, {})[match["label"].replace("_", " ")] = series[match.string]
        charts += [Chart(title, line_chart(lines, chart.unit, chart.factor)) for title, lines in by_title.items()]
    return charts

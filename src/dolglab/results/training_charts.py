"""Charts of trainings, from the metrics.csv of runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dolglab.contracts import DIFFICULTIES
from dolglab.results.card_charts import Chart
from dolglab.results.chart_frames import Axis
from dolglab.results.charts import MAX_LINES, LineChart
from dolglab.results.metrics_log import METRICS, Series, read_series


@dataclass(frozen=True)
class MetricChart:
    """A chart of the metrics whose names match `pattern`, with a line for each `label`; each `set` has its own chart.

    Values are multiplied by `factor`; the x axis is the optimizer step, or the epoch counted from 1.
    """

    title: str
    pattern: str
    unit: str = ""
    factor: float = 1.0
    by: Literal["step", "epoch"] = "step"


METRIC_CHARTS = (
    MetricChart("Loss by epoch", r"train/(?P<label>loss)", "mean loss", by="epoch"),
    MetricChart("Loss by step", r"(?P<label>(?:.+/)?loss(?:_step)?)", "loss"),
    MetricChart(
        "Validation mAP by epoch",
        r"val(?:idation)?/(?:(?P<set>.+)/)?(?P<label>easy|medium|hard|map)",
        "mAP, %",
        100,
        by="epoch",
    ),
    MetricChart("Learning rate by step", r"(?:.+/)?(?P<label>lr|lr-.+|learning_rate)", "learning rate"),
    MetricChart("Training accuracy", r"train/(?P<label>accuracy)", "accuracy, %", 100),
    MetricChart("Cosine to the class weights", r"(?:.+/)?(?P<label>\w*cosine\w*)", "cosine"),
    MetricChart("GeM exponent p", r"(?:.+/)?(?P<label>p)", "p"),
    MetricChart("Throughput", r"(?:.+/)?(?P<label>images_per_second)(?:_step)?", "images/s"),
)
# Charts that compare runs.
COMPARED = ("Loss by epoch", "Loss by step", "Validation mAP by epoch", "Learning rate by step")


def training_charts(run: Path) -> list[Chart]:
    """Charts of a run's metrics.csv; empty if it does not exist, or has no data for any.

    Validation mAP and accuracy are fractions drawn in percent, difficulties from easy to hard. The same file always
    gives the same charts. Raises UserError if it is not a metrics file.
    """
    return [_chart(title, chart, lines) for (title, chart), lines in _lines_of(run).items()]


def compared_curves(runs: Mapping[str, Path]) -> list[Chart]:
    """Charts with a line for each named run: the first line of each metric, or Medium mAP."""
    charts: dict[tuple[str, MetricChart], dict[str, Series]] = {}
    for name, folder in runs.items():
        for key, lines in _lines_of(folder).items():
            if key[1].title in COMPARED:
                charts.setdefault(key, {})[name] = lines.get("medium") or next(iter(lines.values()))
    return [_chart(title, chart, lines) for (title, chart), lines in charts.items()]


def _lines_of(run: Path) -> dict[tuple[str, MetricChart], dict[str, Series]]:
    """The lines of each chart of a run, by the chart's title and definition."""
    path = run / METRICS
    order = {difficulty: position for position, difficulty in enumerate(DIFFICULTIES)}
    charts: dict[tuple[str, MetricChart], dict[str, Series]] = {}
    by = {axis: read_series(path, axis) if path.exists() else {} for axis in ("step", "epoch")}
    for chart in METRIC_CHARTS:
        matches = [match for name in by[chart.by] if (match := re.fullmatch(chart.pattern, name))]
        for match in sorted(matches, key=lambda match: order.get(match["label"], 0)):
            # The log writes a name's spaces as underscores.
            dataset = (match.groupdict().get("set") or "").replace("_", " ")
            title = f"{chart.title}, {dataset}" if dataset else chart.title
            charts.setdefault((title, chart), {})[match["label"].replace("_", " ")] = by[chart.by][match.string]
    # The mAP of a benchmark with one difficulty is logged as medium.
    return {key: {"mAP": lines["medium"]} if [*lines] == ["medium"] else lines for key, lines in charts.items()}


def _chart(title: str, chart: MetricChart, lines: Mapping[str, Series]) -> Chart:
    # Epochs are logged from 0.
    first = 1 if chart.by == "epoch" else 0
    drawn = {
        name: Series([step + first for step in line.steps], [chart.factor * value for value in line.values])
        for name, line in list(lines.items())[:MAX_LINES]
    }
    note = f"the first {MAX_LINES} of {len(lines)} runs" if len(lines) > MAX_LINES else ""
    return Chart(title, LineChart(drawn, Axis(chart.by, whole=True), Axis(chart.unit)), note)

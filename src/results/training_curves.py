"""Charts of what a run logged while it trained."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from src.contracts import DIFFICULTIES
from src.results.charts import line_chart
from src.results.series import Series, read_series


@dataclass(frozen=True)
class Chart:
    """A chart of the metrics whose names match `pattern`: a line a `label`, and a chart a `set`."""

    title: str
    pattern: str
    unit: str = ""
    factor: float = 1.0


CHARTS = (
    Chart("Loss", r"(?P<label>(?:.+/)?loss(?:_step|_epoch)?)"),
    Chart("Validation mAP", r"val(?:idation)?/(?:(?P<set>.+)/)?(?P<label>easy|medium|hard|map)", "%", 100),
    Chart("Training accuracy", r"train/(?P<label>accuracy)", "%", 100),
    Chart("Cosine to the class weights", r"(?:.+/)?(?P<label>\w*cosine\w*)"),
    Chart("GeM exponent p", r"(?:.+/)?(?P<label>p)"),
    Chart("Learning rate", r"(?:.+/)?(?P<label>lr|lr-.+|learning_rate)"),
    Chart("Throughput", r"(?:.+/)?(?P<label>images_per_second)(?:_step)?", "images/s"),
)


def curves_svg(metrics_csv: Path) -> list[tuple[str, str]]:
    """Charts of a run's metrics.csv, each a title and an SVG element that takes the page's text colour.

    Validation mAP and accuracy are read as fractions and drawn in percent. Charts without data are left
    out; the same file always gives the same text. Raises InputError when the file is missing or is not a
    metrics file.
    """
    series = read_series(metrics_csv)
    return [
        (title, line_chart(lines, chart.unit, chart.factor))
        for chart in CHARTS
        for title, lines in _matching(chart, series).items()
    ]


def _matching(chart: Chart, series: dict[str, Series]) -> dict[str, dict[str, Series]]:
    """The lines of `chart` by title, difficulties from easy to hard."""
    found: dict[str, dict[str, Series]] = {}
    order = {difficulty: position for position, difficulty in enumerate(DIFFICULTIES)}
    matches = [match for name in series if (match := re.fullmatch(chart.pattern, name))]
    for match in sorted(matches, key=lambda match: order.get(match["label"], 0)):
        dataset = match.groupdict().get("set")
        title = f"{chart.title}, {dataset}" if dataset else chart.title
        found.setdefault(title, {})[match["label"].replace("_", " ")] = series[match.string]
    return found

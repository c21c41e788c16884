"""What methods cost against what they are worth."""

from __future__ import annotations

import csv
import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.sax.saxutils import escape

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from dolglab.contracts import DIFFICULTIES
from dolglab.errors import UserError

INK = "#010203"
COLOURS = ("#3b7dd8", "#e0703a", "#2a9d76", "#b455a0")
STYLES = ("-", "--", "-.", ":")
MAX_POINTS = 400
SETTINGS: dict[Any, Any] = {"svg.hashsalt": "results", "svg.fonttype": "none", "font.size": 9}
# Letters of this size that a legend's line holds beside the handle of each name.
LEGEND_LETTERS, HANDLE_LETTERS = 66, 7


@mpl.rc_context(SETTINGS)
def line_chart(
    lines: Mapping[str, Series],
    unit: str = "",
    factor: float = 1.0,
    *,
    across: str = "step",
    bounds: tuple[float, float] | None = None,
) -> str:
    """An SVG element with a line for each named series, or a marker where it has one point.

    Values are drawn times `factor`, in `unit`; `across` names the steps. `bounds` hold for both axes.
    """
    names = [short(label, LEGEND_LETTERS - HANDLE_LETTERS) for label in lines]
    columns = min(4, len(names), max(1, LEGEND_LETTERS // (max(map(len, names), default=0) + HANDLE_LETTERS)))
    # What a legend has beyond its first row comes on top, or it would take it from the lines.
    figure, axes = frame(across, unit, size=(4.4, 2.5 + 0.2 * ((len(names) - 1) // max(columns, 1))))
    for position, (name, line) in enumerate(zip(names, lines.values(), strict=True)):
        steps, values = thinned(line)
        marker = "o" if len(steps) == 1 else ""
        # Sixteen lines until a colour comes again in the same style.
        style = STYLES[(position + position // len(COLOURS)) % len(STYLES)]
        colour = COLOURS[position % len(COLOURS)]
        axes.plot(steps, factor * values, style, color=colour, marker=marker, markersize=4, label=name)
    if bounds:
        margin = (bounds[1] - bounds[0]) / 50
        axes.set(xlim=(bounds[0] - margin, bounds[1] + margin), ylim=(bounds[0] - margin, bounds[1] + margin))
    if len(names) > 1:
        figure.legend(loc="outside upper left", ncols=columns, frameon=False, labelcolor=INK, handlelength=2.4)
    return svg_of(figure)


def thinned(series: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values, averaged over equal runs of points where there are more than a chart can show."""
    points = np.array([series.steps, series.values])
    runs = np.array_split(points, min(MAX_POINTS, points.shape[1]), axis=1)
    steps, values = np.stack([run.mean(axis=1) for run in runs], axis=1)
    return steps, values


def frame(across: str, up: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """An empty chart of `size` inches, its axes named."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, _named(figure.subplots(), across, up)


def frame_row(across: Sequence[str], up: str) -> tuple[Figure, list[Axes]]:
    """Empty charts beside one another, on one scale of values."""
    figure = Figure(figsize=(2.6 * len(across), 2.4), layout="constrained")
    row = figure.subplots(1, len(across), sharey=True, squeeze=False)[0]
    return figure, [
        _named(axes, name, "" if place else up) for place, (axes, name) in enumerate(zip(row, across, strict=True))
    ]


def _named(axes: Axes, across: str, up: str) -> Axes:
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    axes.tick_params(color=INK, labelcolor=INK)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set_color(INK)
    return axes


def svg_of(figure: Figure) -> str:
    """The figure as an element, the same text each time."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # Group ids are the same in every figure, and would not be unique in a page that holds several.
    return re.sub(r'<g id="[^"]*"', "<g", svg)


def standalone(svg: str, title: str = "", note: str = "") -> str:
    """The element as a file of its own, under `title` and `note`, dark on white: no page gives it colours or words."""
    size = re.search(r'width="[^"]*" height="[^"]*" viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if size is None:
        raise ValueError("no SVG element with a viewBox from 0, 0")
    width, height = map(float, size.groups())
    lines = [*textwrap.wrap(title, int(width / 5.6)), *textwrap.wrap(note, int(width / 5.6))]
    top = 13.0 * len(lines)
    words = "".join(
        f'<text x="4" y="{13 * place + 10 - top:g}" font-size="9" font-family="sans-serif" fill="currentColor">'
        f"{escape(line)}</text>"
        for place, line in enumerate(lines)
    )
    box = f'width="{width:g}pt" height="{height + top:g}pt" viewBox="0 {-top:g} {width:g} {height + top:g}"'
    head, body = svg.replace(size[0], box, 1).split(">", 1)
    return f'{head} style="background: #ffffff; color: #1f1e1b">{words}{body}\n'


def short(text: str, letters: int) -> str:
    """`text`, or its beginning where it has more letters."""
    return text if len(text) <= letters else text[: letters - 1] + "…"


@dataclass
class Series:
    """A metric's values over training steps, which only increase."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, step: float, value: float) -> None:
        """Append a point; a resumed run goes over steps again, and what it writes then replaces the old."""
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.values.pop()
        self.steps.append(step)
        self.values.append(value)


def read_series(path: Path) -> dict[str, Series]:
    """Every metric in the CSV at `path`, with its finite values by `step` (by `epoch` where there is none).

    Cells may be empty, and a header may stand in the middle where a resumed run wrote one. Raises UserError
    when the file is missing or counts neither steps nor epochs.
    """
    series: dict[str, Series] = {}
    if not path.exists():
        raise UserError(f"metrics not found: {path} (train with logger=csv)")
    for record in _records(path):
        step = _number(record.get("step", "")) if "step" in record else _number(record.get("epoch", ""))
        for name, cell in record.items():
            value = _number(cell)
            if name not in ("step", "epoch") and step is not None and value is not None:
                series.setdefault(name, Series()).add(step, value)
    return series


def _records(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header: list[str] = []
        for row in csv.reader(file):
            if "step" in row or "epoch" in row:
                header = row
            elif not header:
                raise UserError(f"metrics without a step or epoch column: {path}")
            else:
                yield dict(zip(header, row, strict=False))


def _number(cell: str) -> float | None:
    """The finite number in a cell, None for anything else."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


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
    out; the same file always gives the same text. Raises UserError when the file is missing or is not a
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


NAME_LETTERS, LINE_LETTERS = 60, 24
# Points from a dot's middle within which no name should stand.
DOT = 4


class Place(NamedTuple):
    """Where a name may stand: points away from its dot, and which side of the name lies there."""

    x: float
    y: float
    across: Literal["left", "center", "right"]
    up: Literal["bottom", "center", "top"]


# The first that is free is taken.
PLACES = (
    Place(7, 0, "left", "center"),
    Place(-7, 0, "right", "center"),
    Place(0, 6, "center", "bottom"),
    Place(0, -6, "center", "top"),
    Place(5, 5, "left", "bottom"),
    Place(5, -5, "left", "top"),
    Place(-5, 5, "right", "bottom"),
    Place(-5, -5, "right", "top"),
    Place(0, 17, "center", "bottom"),
    Place(0, -17, "center", "top"),
)


@mpl.rc_context(SETTINGS)
def tradeoff_svg(points: Sequence[tuple[str, float, float]], across: str, up: str = "mAP, %") -> str:
    """An SVG element of named points (name, cost, mAP): the cost, named `across`, on a logarithmic axis.

    Costs are above 0, mAP is a fraction, drawn in percent. A name stands beside its point, where it covers least.
    """
    costs, maps = np.array([cost for _, cost, _ in points]), 100 * np.array([value for *_, value in points])
    figure, axes = frame(across, up, (4.4, 3.0))
    axes.set_xscale("log")
    axes.scatter(costs, maps, s=28, c=[COLOURS[place % len(COLOURS)] for place in range(len(points))], zorder=3)
    # Room for the names, even where all points stand in one place.
    axes.set_xlim(costs.min() / 2, costs.max() * 2)
    room = max(0.15 * float(np.ptp(maps)), 1.0)
    axes.set_ylim(maps.min() - room, maps.max() + room)
    few = costs.max() < 30 * costs.min()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=15))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:.4g}"))
    # Names have no place before the axes have theirs.
    figure.draw_without_rendering()
    names = [textwrap.fill(short(name, NAME_LETTERS), LINE_LETTERS) for name, *_ in points]
    _name_points(figure, axes, names, np.column_stack([costs, maps]))
    return svg_of(figure)


def _name_points(figure: Figure, axes: Axes, names: Sequence[str], points: NDArray[np.float64]) -> None:
    dots = axes.transData.transform(points)
    dot = DOT * figure.dpi / 72
    taken = [Bbox.from_extents(x - dot, y - dot, x + dot, y + dot) for x, y in dots.tolist()]
    for name, point in zip(names, points, strict=True):
        tried = [_annotation(axes, name, point, place) for place in PLACES]
        boxes = [annotation.get_window_extent() for annotation in tried]
        best = int(np.argmin([_covered(box, taken) + _outside(box, figure.bbox.frozen()) for box in boxes]))
        taken.append(boxes[best])
        for place, annotation in enumerate(tried):
            if place != best:
                annotation.remove()


def _annotation(axes: Axes, name: str, point: NDArray[np.float64], place: Place) -> Annotation:
    annotation = axes.annotate(
        name,
        (point[0], point[1]),
        (place.x, place.y),
        textcoords="offset points",
        ha=place.across,
        va=place.up,
        color=INK,
        fontsize=8,
        linespacing=1.0,
    )
    annotation.set_in_layout(False)
    return annotation


def _covered(box: Bbox, taken: Sequence[Bbox]) -> float:
    """The area of `box` that lies on others, in square pixels."""
    shared = [Bbox.intersection(box, other) for other in taken]
    return sum(part.width * part.height for part in shared if part is not None)


def _outside(box: Bbox, whole: Bbox) -> float:
    """The area of `box` that would be cut off."""
    inside = Bbox.intersection(box, whole)
    return box.width * box.height - (inside.width * inside.height if inside is not None else 0)

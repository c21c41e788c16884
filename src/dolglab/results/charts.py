"""Line and scatter charts as SVG, in the colours of the page that holds them; and the series of a metrics.csv."""

from __future__ import annotations

import csv
import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from dolglab.errors import UserError

INK = "#010203"
COLOURS = ("#3b7dd8", "#e0703a", "#2a9d76", "#b455a0")
STYLES = ("-", "--", "-.", ":")
MAX_POINTS = 400
SETTINGS: dict[Any, Any] = {"svg.hashsalt": "results", "svg.fonttype": "none", "font.size": 9}
# Letters of this size that a legend's line holds beside the handle of each name.
LEGEND_LETTERS, HANDLE_LETTERS = 66, 7
NAME_LETTERS, LINE_LETTERS = 60, 24
# Points from a dot's middle within which no name should stand.
DOT = 4
# Where a name may stand: points away from its dot, and which side of the name lies there. The first free one is taken.
NAME_PLACES: tuple[tuple[int, int, Literal["left", "center", "right"], Literal["bottom", "center", "top"]], ...] = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
    (5, 5, "left", "bottom"),
    (5, -5, "left", "top"),
    (-5, 5, "right", "bottom"),
    (-5, -5, "right", "top"),
    (0, 17, "center", "bottom"),
    (0, -17, "center", "top"),
)


@mpl.rc_context(SETTINGS)
def line_chart(
    lines: Mapping[str, Series],
    ylabel: str = "",
    factor: float = 1.0,
    *,
    xlabel: str = "step",
    bounds: tuple[float, float] | None = None,
) -> str:
    """An SVG element with a line for each named series, or a marker where it has one point.

    Values are drawn times `factor`; `bounds` hold for both axes.
    """
    names = [ellipsize(label, LEGEND_LETTERS - HANDLE_LETTERS) for label in lines]
    columns = min(4, len(names), max(1, LEGEND_LETTERS // (max(map(len, names), default=0) + HANDLE_LETTERS)))
    # What a legend has beyond its first row comes on top, or it would take it from the lines.
    figure, (axes,) = frames([xlabel], ylabel, (4.4, 2.5 + 0.2 * ((len(names) - 1) // max(columns, 1))))
    for position, (name, line) in enumerate(zip(names, lines.values(), strict=True)):
        # Where there are more points than a chart can show, equal runs of them are averaged.
        points = np.array([line.steps, line.values])
        runs = np.array_split(points, min(MAX_POINTS, points.shape[1]), axis=1)
        steps, values = np.stack([run.mean(axis=1) for run in runs], axis=1)
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


@mpl.rc_context(SETTINGS)
def tradeoff_chart(points: Sequence[tuple[str, float, float]], xlabel: str, ylabel: str = "mAP, %") -> str:
    """An SVG element of named points (name, cost, mAP), the cost on a logarithmic axis.

    Costs are above 0, mAP is a fraction, drawn in percent. A name stands beside its point, where it covers least.
    """
    costs, maps = np.array([cost for _, cost, _ in points]), 100 * np.array([value for *_, value in points])
    figure, (axes,) = frames([xlabel], ylabel, (4.4, 3.0))
    axes.set_xscale("log")
    axes.scatter(costs, maps, s=28, c=[COLOURS[place % len(COLOURS)] for place in range(len(points))], zorder=3)
    # Room for the names, even where all points stand in one place.
    axes.set_xlim(costs.min() / 2, costs.max() * 2)
    room = max(0.15 * float(np.ptp(maps)), 1.0)
    axes.set_ylim(maps.min() - room, maps.max() + room)
    narrow = costs.max() < 30 * costs.min()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=15))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:.4g}"))
    # Names have no place before the axes have theirs.
    figure.draw_without_rendering()
    names = [textwrap.fill(ellipsize(name, NAME_LETTERS), LINE_LETTERS) for name, *_ in points]
    _name_points(figure, axes, names, np.column_stack([costs, maps]))
    return svg_of(figure)


def _name_points(figure: Figure, axes: Axes, names: Sequence[str], points: NDArray[np.float64]) -> None:
    """Write each name where it covers the least of dots and of other names, and least is cut off."""
    radius = DOT * figure.dpi / 72
    dots = axes.transData.transform(points).tolist()
    taken = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in dots]
    for name, (x, y) in zip(names, points.tolist(), strict=True):
        tried = [
            axes.annotate(
                name,
                (x, y),
                (right, up),
                textcoords="offset points",
                ha=ha,
                va=va,
                color=INK,
                fontsize=8,
                linespacing=1.0,
                in_layout=False,
            )
            for right, up, ha, va in NAME_PLACES
        ]
        boxes = [annotation.get_window_extent() for annotation in tried]
        hidden = [
            sum(_shared_area(box, other) for other in taken)
            + (box.width * box.height - _shared_area(box, figure.bbox.frozen()))
            for box in boxes
        ]
        best = int(np.argmin(hidden))
        taken.append(boxes[best])
        for annotation in (*tried[:best], *tried[best + 1 :]):
            annotation.remove()


def _shared_area(box: Bbox, other: Bbox) -> float:
    """In square pixels."""
    part = Bbox.intersection(box, other)
    return 0 if part is None else part.width * part.height


def frames(xlabels: Sequence[str], ylabel: str, size: tuple[float, float] | None = None) -> tuple[Figure, list[Axes]]:
    """Empty charts beside one another, on one scale of values; `size` in inches, 2.6 x 2.4 a chart unless given."""
    figure = Figure(figsize=size or (2.6 * len(xlabels), 2.4), layout="constrained")
    row: list[Axes] = list(figure.subplots(1, len(xlabels), sharey=True, squeeze=False)[0])
    row[0].set_ylabel(ylabel, color=INK)
    for axes, xlabel in zip(row, xlabels, strict=True):
        axes.set_xlabel(xlabel, color=INK)
        axes.tick_params(color=INK, labelcolor=INK)
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_offset_text().set_color(INK)
    return figure, row


def svg_of(figure: Figure) -> str:
    """The figure as an element that takes the page's text colour, the same text each time."""
    text = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=no_metadata)
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
        f'<text x="4" y="{13 * number + 10 - top:g}" font-size="9" font-family="sans-serif" fill="currentColor">'
        f"{escape(line)}</text>"
        for number, line in enumerate(lines)
    )
    box = f'width="{width:g}pt" height="{height + top:g}pt" viewBox="0 {-top:g} {width:g} {height + top:g}"'
    head, body = svg.replace(size[0], box, 1).split(">", 1)
    return f'{head} style="background: #ffffff; color: #1f1e1b">{words}{body}\n'


def ellipsize(text: str, letters: int) -> str:
    """`text`, or its beginning where it has more letters.

    >>> ellipsize("abc", 3), ellipsize("abcd", 3)
    ('abc', 'ab…')
    """
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
        step = _number(record.get("step", record.get("epoch", "")))
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

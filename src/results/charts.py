"""Charts as SVG elements that take the text colour of the page they stand in."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from src.results.series import Series

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

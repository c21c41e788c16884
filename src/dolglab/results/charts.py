"""Charts as SVG: lines, points and intervals, in the colours of the page that contains them, with values on hover.

They need no script, so a page can be mailed, printed, and read with scripts disabled. Colours and dashes are classes of
chart.css, whose variables the page sets for light and dark mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from dolglab.results.chart_frames import (
    LETTER,
    LINE_HEIGHT,
    Axis,
    Scale,
    ellipsize,
    frame,
    ground,
    number,
    rule,
    svg,
    text,
    tip,
)
from dolglab.results.metrics_log import Series

# Widths of a drawing for desktops and phones: a page shows one of the two, so that text does not shrink.
WIDE, NARROW = 1120.0, 400.0
COLOURS, DASHES = 6, 4
# Most points of a line (beyond, equal runs are averaged), most places that show values, most points drawn with dots.
MAX_POINTS, MAX_VALUES, DOTTED = 240, 60, 40
# Most lines in a chart: each has a different combination of colour and dash.
MAX_LINES = 12


@dataclass(frozen=True)
class Values:
    """A chart's values as a table: heading and rows."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Drawing(Protocol):
    """A chart without its title."""

    def draw(self, width: float) -> str:
        """An SVG element of this width."""
        ...

    def values(self) -> Values:
        """Its values, for readers without a pointer."""
        ...


@dataclass(frozen=True)
class LineChart:
    """Named series on common axes."""

    lines: dict[str, Series]
    x: Axis
    y: Axis

    def draw(self, width: float) -> str:
        """Lines with a legend above them, and values on hover."""
        names = [ellipsize(name, int((width - 60) / LETTER)) for name in self.lines]
        legend, below = _legend(names, width) if len(names) > 1 else ([], 4.0)
        top, height = below + 26, (240.0 if width > NARROW else 200.0)
        thinned = [thin(line) for line in self.lines.values()]
        x = Scale.of(self.x, [step for line in thinned for step in line.steps], 62, width - 24, int(width / 110))
        y = Scale.of(self.y, [value for line in thinned for value in line.values], top + height, top)
        parts = [*legend, *frame(x, y, self.x.label, self.y.label)]
        for place, line in enumerate(thinned):
            points = [(x.place(step), y.place(value)) for step, value in zip(line.steps, line.values, strict=True)]
            path = "M" + "L".join(f"{across:.1f} {up:.1f}" for across, up in points)
            parts.append(f'<path class="line {_stroke(place)}" d="{path}"/>')
            if len(points) <= DOTTED:
                parts += [_dot(*point, place, 3.5) for point in points]
        if width > NARROW:
            parts += self._hover(x, y, thinned)
        return svg(width, top + height + 50, parts)

    def _hover(self, x: Scale, y: Scale, lines: Sequence[Series]) -> Iterator[str]:
        """A strip for each place that shows its values on hover."""
        table = _table(lines)
        places = [x.place(step) for step, _ in table]
        edges = [x.start - 8, *((one + other) / 2 for one, other in pairwise(places)), x.end + 8]
        for (step, values), place, (left, right) in zip(table, places, pairwise(edges), strict=True):
            shown = [
                (f"{name} {number(value)}", f"f{line % COLOURS}", y.place(value), line)
                for line, (name, value) in enumerate(zip(self.lines, values, strict=True))
                if value is not None
            ]
            dots = "".join(_dot(place, up, line, 5) for *_, up, line in shown)
            texts = [(f"{self.x.label} {number(step)}", "name"), *((words, kind) for words, kind, *_ in shown)]
            yield (
                f'<g class="at"><rect class="hit" x="{left:.1f}" y="{y.end:.1f}" width="{right - left:.1f}" '
                f'height="{y.start - y.end:.1f}"/><g class="tip">{rule(place, y.start, place, y.end, "axis")}{dots}'
                f"{tip(texts, place, y.end + 6, x.end)}</g></g>"
            )

    def values(self) -> Values:
        """A row for each place that shows its values."""
        rows = _table([thin(line) for line in self.lines.values()])
        return Values(
            (self.x.label, *self.lines),
            tuple(
                (number(step), *("" if value is None else number(value) for value in values)) for step, values in rows
            ),
        )


def thin(line: Series) -> Series:
    """The line; if it has too many points for a chart, means of equal runs of points."""
    points = np.array([line.steps, line.values])
    runs = np.array_split(points, min(MAX_POINTS, points.shape[1]), axis=1)
    steps, values = np.stack([run.mean(axis=1) for run in runs], axis=1).tolist()
    return Series(steps, values)


def _table(lines: Sequence[Series]) -> list[tuple[float, list[float | None]]]:
    """Values of x, evenly chosen if there are many, with the value of each line there; None if it has none."""
    steps = sorted({step for line in lines for step in line.steps})
    chosen = np.linspace(0, len(steps) - 1, min(MAX_VALUES, len(steps))).round().astype(int)
    by_step = [dict(zip(line.steps, line.values, strict=True)) for line in lines]
    return [(steps[place], [values.get(steps[place]) for values in by_step]) for place in chosen.tolist()]


@dataclass(frozen=True)
class PointChart:
    """Named points, such as the cost and accuracy of methods."""

    points: tuple[tuple[str, float, float], ...]
    x: Axis
    y: Axis

    def draw(self, width: float) -> str:
        """Points, with names that do not overlap others."""
        top, height = 30.0, (300.0 if width > NARROW else 240.0)
        across, up = zip(*((x, y) for _, x, y in self.points), strict=True)
        x = Scale.of(self.x, across, 62, width - 24, int(width / 110))
        y = Scale.of(self.y, up, top + height, top)
        places = [(x.place(one), y.place(other)) for one, other in zip(across, up, strict=True)]
        parts = [*frame(x, y, self.x.label, self.y.label), *_names(self.points, places, width)]
        for place, ((name, one, other), (left, height_)) in enumerate(zip(self.points, places, strict=True)):
            texts = [(name, "name"), (f"{self.x.label} {number(one)}", ""), (f"{self.y.label} {number(other)}", "")]
            hover = f'<g class="tip">{tip(texts, left, height_ - 14, x.end)}</g>'
            hit = f'<circle class="hit" cx="{left:.1f}" cy="{height_:.1f}" r="12"/>'
            parts.append(f'<g class="at">{_dot(left, height_, place, 6)}{hit}{hover if width > NARROW else ""}</g>')
        return svg(width, top + height + 50, parts)

    def values(self) -> Values:
        """A row for each point."""
        rows = tuple((name, number(one), number(other)) for name, one, other in self.points)
        return Values(("", self.x.label, self.y.label), rows)


def _names(
    points: Sequence[tuple[str, float, float]], places: Sequence[tuple[float, float]], width: float
) -> list[str]:
    """The names that fit beside, above or below their points without overlap."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    drawn = []
    for (name, *_), (x, y) in zip(points, places, strict=True):
        name = ellipsize(name, int(width / 3 / LETTER))
        long = LETTER * len(name)
        for left, middle in ((x + 11, y), (x - 11 - long, y), (x - long / 2, y - 16), (x - long / 2, y + 16)):
            box = left, middle - 8, left + long, middle + 8
            if left >= 0 and left + long <= width and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                drawn.append(text(left, middle, name, kind="name"))
                break
    return drawn


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@dataclass(frozen=True)
class IntervalChart:
    """Rows of a name, a figure and its interval (low, high) if it has one, with the numbers beside them."""

    rows: tuple[tuple[str, float, tuple[float, float] | None], ...]
    x: Axis

    def draw(self, width: float) -> str:
        """Dots with whiskers; names are on their left, or above them on a phone."""
        beside = width > NARROW
        letters = max(len(name) for name, *_ in self.rows)
        left = min(LETTER * letters + 20, width / 3) if beside else 12.0
        right = width - LETTER * max(len(_said(*row[1:])) for row in self.rows) - 20 if beside else width - 12
        step = 34.0 if beside else 52.0
        ends = [value for _, figure, bounds in self.rows for value in (figure, *(bounds or ()))]
        x = Scale.of(self.x, ends, left, right, int((right - left) / 90))
        bottom = step * len(self.rows) + 6
        parts = [rule(x.place(tick), 0, x.place(tick), bottom) for tick in x.ticks]
        for place, (name, value, bounds) in enumerate(self.rows):
            middle = step * (place + 0.5) + (0 if beside else 12)
            name_at = (left - 12, middle, "end") if beside else (left, middle - 20, "start")
            said_at = (right + 12, middle, "start") if beside else (right, middle - 20, "end")
            room = left - 12 if beside else right - left - LETTER * len(_said(value, bounds)) - 10
            parts.append(text(*name_at[:2], ellipsize(name, int(room / LETTER)), name_at[2], "name"))
            parts.append(text(*said_at[:2], _said(value, bounds), said_at[2]))
            if bounds:
                low, high = map(x.place, bounds)
                parts.append(rule(low, middle, high, middle, "line c0"))
                parts += [rule(end, middle - 6, end, middle + 6, "line c0") for end in (low, high)]
            parts.append(_dot(x.place(value), middle, 0, 6))
        parts += [*ground(x, bottom), text((left + right) / 2, bottom + 40, self.x.label, "middle")]
        return svg(width, bottom + 50, parts)

    def values(self) -> Values:
        """A row for each name."""
        return Values(("", self.x.label), tuple((name, _said(value, bounds)) for name, value, bounds in self.rows))


def _said(value: float, bounds: tuple[float, float] | None) -> str:
    return f"{value:.2f}" + (f" ({bounds[0]:.1f} to {bounds[1]:.1f})" if bounds else "")


def _stroke(place: int) -> str:
    """The classes of a line; colours and dashes repeat together only after all combinations."""
    return f"c{place % COLOURS} d{(place + place // COLOURS) % DASHES}"


def _dot(x: float, y: float, place: int, radius: float) -> str:
    return f'<circle class="f{place % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def _legend(names: Sequence[str], width: float) -> tuple[list[str], float]:
    """A stroke and a name for each line, in as many rows as needed, and their height."""
    parts, x, y = [], 0.0, 12.0
    for place, name in enumerate(names):
        long = 36 + LETTER * len(name)
        if x and x + long > width:
            x, y = 0.0, y + LINE_HEIGHT + 2
        parts += [rule(x, y, x + 28, y, f"line {_stroke(place)}"), text(x + 34, y, name, kind="name")]
        x += long + 18
    return parts, y + 14


def as_file(drawing: Drawing, title: str, note: str = "") -> str:
    """A chart as the text of an SVG file with its title, dark on white."""
    page, style = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "chart.css"))
    # The light colours, which are first in page.css; few programs other than browsers support variables.
    colours = dict(reversed(re.findall(r"--(\w+): (#\w+);", page)))
    style = re.sub(r"var\(--(\w+)\)", lambda match: colours[match[1]], style)
    drawn = drawing.draw(WIDE)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)
    assert size
    width, height = map(float, size.groups())
    lines = [line for line in (title, note) if line]
    top = LINE_HEIGHT * len(lines) + 6
    head = [
        f"<style>{style}</style>",
        f'<rect x="0" y="{-top:g}" width="{width:g}" height="{height + top:g}" fill="#ffffff"/>',
        *(
            text(4, LINE_HEIGHT * (place + 0.5) - top, ellipsize(line, int(width / LETTER)), kind="name")
            for place, line in enumerate(lines)
        ),
    ]
    box = f'viewBox="0 {-top:g} {width:g} {height + top:g}"'
    return drawn.replace(size[0], box, 1).replace(">", ">" + "".join(head), 1) + "\n"

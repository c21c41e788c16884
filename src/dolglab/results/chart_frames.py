"""The frame of a chart: scales with round ticks, a grid, and texts of estimated width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

# In SVG units (pixels if it is not scaled): the mean width of a letter at font size 13 in a wide font, and the line
# height.
LETTER, LINE_HEIGHT = 7.8, 18.0
# A linear axis has at most so many parts; their length is the smallest such round step.
PARTS, ROUND = 6, (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """An axis; its ends follow from the values unless `bounds` are given. `whole`: ticks are whole numbers."""

    label: str = ""
    bounds: tuple[float, float] | None = None
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, axis: Axis, values: Sequence[float], start: float, end: float, parts: int = PARTS) -> Scale:
        """The scale of an axis for `values`, which must be above 0 if it is logarithmic."""
        low, high = axis.bounds or (min(values), max(values))
        if axis.log:
            # Room for the labels of the outermost points.
            low, high = low / 1.6, high * 1.6
            return cls(low, high, start, end, True, tuple(_log_ticks(low, high)))
        if low == high:
            low, high = (low - 1, high + 1) if axis.whole or not low else (low - abs(low) / 2, high + abs(low) / 2)
        step = _round_step((high - low) / parts, axis.whole)
        if axis.bounds is None and not axis.whole:
            low, high = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
        first = math.ceil(low / step - 1e-9)
        count = math.floor(high / step + 1e-9) - first + 1
        return cls(low, high, start, end, False, tuple(step * (first + number) for number in range(count)))

    def place(self, value: float) -> float:
        """The pixel of a value."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        share = ((math.log(value) if self.log else value) - low) / (high - low)
        return self.start + share * (self.end - self.start)


def _round_step(least: float, whole: bool) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * factor for factor in ROUND if power * factor >= least * (1 - 1e-9))
    return max(1.0, math.ceil(step)) if whole else step


def _log_ticks(low: float, high: float) -> Iterator[float]:
    factors = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        yield from (tick for factor in factors if low <= (tick := factor * 10.0**power) <= high)


def number(value: float) -> str:
    """A value with four digits, or all digits before the point.

    >>> number(0.0123456), number(12345.6), number(50.0), number(1e-6)
    ('0.01235', '12,346', '50', '1e-06')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def ellipsize(text: str, letters: int) -> str:
    """`text`, shortened to at most `letters`.

    >>> ellipsize("abc", 3), ellipsize("abcd", 3)
    ('abc', 'ab…')
    """
    return text if len(text) <= letters else text[: letters - 1] + "…"


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """A line of text, vertically centred at `y`."""
    attributes = f' class="{kind}"' if kind else ""
    return f'<text{attributes} x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def rule(x1: float, y1: float, x2: float, y2: float, kind: str = "rule") -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def tip(lines: Sequence[tuple[str, str]], x: float, y: float, right: float) -> str:
    """A tooltip beside `x`, left of `right`: lines of text with their classes."""
    width = LETTER * max(len(words) for words, _ in lines) + 14
    left = x + 10 if x + 10 + width <= right else max(0.0, x - 10 - width)
    height = LINE_HEIGHT * len(lines) + 8
    box = f'<rect class="box" x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    words = (
        text(left + 7, y + 4 + LINE_HEIGHT * (place + 0.5), line, kind=kind) for place, (line, kind) in enumerate(lines)
    )
    return box + "".join(words)


def frame(x: Scale, y: Scale, xlabel: str, ylabel: str) -> Iterator[str]:
    """Grid, ticks and labels of two scales; the y label is above its axis, where it is horizontal."""
    for tick in y.ticks:
        yield rule(x.start, y.place(tick), x.end, y.place(tick))
        yield text(x.start - 8, y.place(tick), number(tick), "end")
    yield from ground(x, y.start)
    yield text((x.start + x.end) / 2, y.start + 40, xlabel, "middle")
    yield text(4, y.end - 18, ylabel)


def ground(x: Scale, bottom: float) -> Iterator[str]:
    """The x axis with its ticks."""
    yield rule(x.start, bottom, x.end, bottom, "axis")
    for tick in x.ticks:
        yield rule(x.place(tick), bottom, x.place(tick), bottom + 5, "axis")
        yield text(x.place(tick), bottom + 18, number(tick), "middle")


def svg(width: float, height: float, parts: Iterable[str]) -> str:
    """The SVG element of a drawing."""
    head = f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg">'
    return f"{head}{''.join(parts)}</svg>"

"""What methods cost against what they are worth."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from src.results.charts import COLOURS, INK, SETTINGS, frame, short, svg_of

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

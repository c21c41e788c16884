"""Charts of a sweep by matplotlib, as SVG files, dark on white."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from xml.sax.saxutils import escape

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, BLUE = "#1f1e1b", "#3b7dd8"


def frames(xlabels: Sequence[str], ylabel: str, size: tuple[float, float] | None = None) -> tuple[Figure, list[Axes]]:
    """Empty charts side by side with a common y axis; `size` in inches, by default 2.6 x 2.4 per chart."""
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


def svg_file(figure: Figure, title: str, note: str = "") -> str:
    """The figure as the text of an SVG file, with `title` and `note` above it."""
    text = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=no_metadata)
    width, height = 72 * figure.get_size_inches()
    lines = [*textwrap.wrap(title, int(width / 5.6)), *textwrap.wrap(note, int(width / 5.6))]
    top = 13.0 * len(lines)
    words = "".join(
        f'<text x="4" y="{13 * number + 10 - top:g}" font-size="9" font-family="sans-serif" fill="{INK}">'
        f"{escape(line)}</text>"
        for number, line in enumerate(lines)
    )
    box = f'width="{width:g}pt" height="{height + top:g}pt" viewBox="0 {-top:g} {width:g} {height + top:g}"'
    head, body = text.getvalue().split("<svg", 1)[1].split(">", 1)
    head = re.sub(r'width="[^"]*" height="[^"]*" viewBox="[^"]*"', box, head)
    return f'<svg{head} style="background: #ffffff">{words}{body}\n'

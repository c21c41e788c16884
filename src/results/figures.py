"""Figures of a run: training curves as SVG, and queries with the head of their rankings as a JPEG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from src.contracts import DIFFICULTIES, Benchmark, Difficulty, Ranking
from src.results.cells import COLOURS, SIGNS, Kind, cell, kind_of, query_box
from src.results.series import Series, read_series

INK = "#010203"
LINES = (("#3b7dd8", "-"), ("#e0703a", "--"), ("#2a9d76", "-."), ("#b455a0", ":"))
MAX_POINTS = 400

BORDER = 4
TEXT_WIDTH, LABEL_HEIGHT, GAP, QUERY_GAP = 150, 20, 8, 14
MAX_BYTES = 600_000


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


def line_chart(lines: dict[str, Series], unit: str = "", factor: float = 1.0) -> str:
    """An SVG element with a line for each named series, or a marker where it has one point."""
    with mpl.rc_context({"svg.hashsalt": "results", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(4.4, 2.5), layout="constrained")
        axes = figure.subplots()
        for position, (label, line) in enumerate(lines.items()):
            colour, style = LINES[position % len(LINES)]
            steps, values = thinned(line)
            marker = "o" if len(steps) == 1 else ""
            axes.plot(steps, factor * values, style, color=colour, marker=marker, markersize=4, label=label)
        axes.set_xlabel("step", color=INK)
        axes.set_ylabel(unit, color=INK)
        axes.tick_params(color=INK, labelcolor=INK)
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_offset_text().set_color(INK)
        if len(lines) > 1:
            figure.legend(loc="outside upper left", ncols=4, frameon=False, labelcolor=INK, handlelength=2.4)
        return _svg(figure)


def thinned(series: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values, averaged over equal runs of points where there are more than a chart can show."""
    points = np.array([series.steps, series.values])
    runs = np.array_split(points, min(MAX_POINTS, points.shape[1]), axis=1)
    steps, values = np.stack([run.mean(axis=1) for run in runs], axis=1)
    return steps, values


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


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # Group ids are the same in every figure, and would not be unique in a page that holds several.
    return re.sub(r'<g id="[^"]*"', "<g", svg)


def ranked_grid(ranking: Ranking, *, queries: int = 8, top: int = 10, thumb: int = 112) -> bytes:
    """A JPEG of queries, evenly chosen from the best AP to the worst, each with its `top` first images.

    Every cell is `thumb` pixels square inside its border: blue for the query (its crop box drawn, if it was
    cropped), green for positives, red for negatives, grey for junk, the query's own image included, all
    under Medium where the benchmark has it. An image that cannot be read is a grey cell with a cross.
    """
    difficulty = shown_difficulty(ranking)
    ap = np.asarray(ranking.evaluation[difficulty]["ap"], dtype=np.float64)
    rows = chosen_queries(ap, queries)
    columns = min(top, int((ranking.top >= 0).sum(1).max()))
    width, height = cell_corner(len(rows), columns + 1, thumb)
    canvas = Image.new("RGB", (width, height), "white")
    for row, query in enumerate(rows.tolist()):
        _describe(canvas, row, thumb, float(ap[query]), ranking.benchmark, query)
        answers = ranking.top[query, :columns]
        shown = [int(ranking.benchmark.queries[query]), *answers[answers >= 0].tolist()]
        kinds: list[Kind] = [
            "query",
            *(kind_of(ranking.benchmark, query, p, difficulty) for p in shown[1:]),
        ]
        for column, (position, kind) in enumerate(zip(shown, kinds, strict=True)):
            box = query_box(ranking.benchmark, query) if kind == "query" else None
            tile = cell(ranking.benchmark, position, thumb, box)
            label = SIGNS[kind] if kind == "query" else f"{column} {SIGNS[kind]}"
            _place(canvas, tile, cell_corner(row, column, thumb), kind, label)
    return _jpeg(canvas)


def shown_difficulty(ranking: Ranking) -> Difficulty:
    """Medium where the benchmark has it, otherwise the first that it has."""
    evaluated: list[Difficulty] = [d for d in ranking.benchmark.difficulties if d in ranking.evaluation]
    return "medium" if "medium" in evaluated else evaluated[0]


def chosen_queries(ap: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Up to `count` queries, evenly spread from the highest AP to the lowest; those left out (NaN) last."""
    ranked = np.argsort(-ap, kind="stable")
    ranked = ranked[: max(np.isfinite(ap).sum(), 1)]
    return ranked[np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(np.int64)]


def cell_corner(row: int, column: int, thumb: int) -> tuple[int, int]:
    """The left upper pixel of a cell's border; column 0 is the query."""
    side = thumb + 2 * BORDER
    x = TEXT_WIDTH + column * (side + GAP) + (QUERY_GAP if column else 0)
    return x, GAP + row * (side + LABEL_HEIGHT + GAP)


def _place(canvas: Image.Image, tile: Image.Image, corner: tuple[int, int], kind: Kind, label: str) -> None:
    x, y = corner
    side = tile.width + 2 * BORDER
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((x, y, x + side - 1, y + side - 1), COLOURS[kind])
    canvas.paste(tile, (x + BORDER, y + BORDER))
    draw.text((x + side / 2, y + side + LABEL_HEIGHT / 2), label, "#333333", _font(13), anchor="mm")


def _describe(canvas: Image.Image, row: int, thumb: int, ap: float, benchmark: Benchmark, query: int) -> None:
    """Write the query's AP and name at the left of its row."""
    _, y = cell_corner(row, 0, thumb)
    middle = y + BORDER + thumb / 2
    draw = ImageDraw.Draw(canvas)
    score = f"AP {100 * ap:.1f}" if np.isfinite(ap) else "left out"
    draw.text((GAP, middle - 2), score, "#111111", _font(20), anchor="ls")
    name = benchmark.source.name(int(benchmark.queries[query]))
    shown = next(_shortened(name, draw, TEXT_WIDTH - 2 * GAP))
    draw.text((GAP, middle + 6), shown, "#666666", _font(13), anchor="lt")


def _shortened(name: str, draw: ImageDraw.ImageDraw, width: int) -> Iterator[str]:
    """`name`, then ever shorter ends of it, as far as they fit `width` pixels."""
    for start in range(len(name) + 1):
        text = f"…{name[start:]}" if start else name
        if draw.textlength(text, _font(13)) <= width:
            yield text


def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib's own copy: the machine's fonts, if it has any, would change the picture.
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _jpeg(image: Image.Image) -> bytes:
    """`image` as a JPEG without chroma subsampling, which would bleed the borders, in at most MAX_BYTES."""
    for quality in (90, 80, 70, 60, 50, 40):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, subsampling=0)
        if file.tell() <= MAX_BYTES:
            break
    return file.getvalue()

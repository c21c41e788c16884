"""Queries with the heads of their rankings, as a JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from src.contracts import Benchmark, Difficulty, Ranking
from src.results.cells import COLOURS, SIGNS, Kind, cell, kind_of, query_box
from src.results.drawing import beginning, ending, font, jpeg

BORDER = 4
TEXT_WIDTH, LABEL_HEIGHT, GAP, QUERY_GAP, NOTE_HEIGHT = 150, 20, 8, 14, 26


@dataclass(frozen=True)
class Layout:
    """Where a grid's cells stand: `thumb` pixels a side, `per_query` rows a query, `header` pixels down."""

    thumb: int
    per_query: int = 1
    header: int = 0

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """The left upper pixel of a cell's border; column 0 is the query."""
        side = self.thumb + 2 * BORDER
        x = TEXT_WIDTH + column * (side + GAP) + (QUERY_GAP if column else 0)
        apart = QUERY_GAP * (row // self.per_query) if self.per_query > 1 else 0
        return x, self.header + GAP + row * (side + LABEL_HEIGHT + GAP) + apart


@dataclass(frozen=True)
class Row:
    """A query's answers, best first, with what stands beside them; the query itself stands before the first row.

    `former` are the answers before re-ranking, against which the row says where an answer comes from.
    """

    query: int
    answers: NDArray[np.int64]
    title: str
    subtitle: str
    first: bool = True
    former: NDArray[np.int64] | None = None


def ranked_grid(
    ranking: Ranking, *, queries: int | Sequence[int] = 8, top: int = 10, thumb: int = 112, notes: Sequence[str] = ()
) -> bytes:
    """A JPEG of queries, so many evenly chosen from the best AP to the worst or those given, each with its `top` first
    images.

    Every cell is `thumb` pixels square inside its border: blue for the query (its crop box drawn, if it was
    cropped), green for positives, red for negatives, grey for junk, the query's own image included, all
    under Medium where the benchmark has it. An image that cannot be read is a grey cell with a cross. A ranking that
    has its heads before re-ranking gets two rows a query, before and after. `notes` head the picture.
    """
    difficulty = shown_difficulty(ranking)
    ap = np.asarray(ranking.evaluation[difficulty]["ap"], dtype=np.float64)
    chosen = chosen_queries(ap, queries).tolist() if isinstance(queries, int) else queries
    rows = [row for query in chosen for row in _rows(ranking, query, float(ap[query]))]
    columns = min(top, max(int((row.answers >= 0).sum()) for row in rows))
    layout = Layout(thumb, 1 if ranking.before is None else 2, NOTE_HEIGHT if notes else 0)
    canvas = Image.new("RGB", layout.corner(len(rows), columns + 1), "white")
    draw = ImageDraw.Draw(canvas)
    if notes:
        text = beginning("; ".join(notes), draw, 14, canvas.width - 2 * GAP)
        draw.text((GAP, GAP), text, "#111111", font(14), anchor="lt")
    for place, row in enumerate(rows):
        _describe(draw, row, layout.corner(place, 0)[1] + BORDER + thumb / 2)
        if row.first:
            position = int(ranking.benchmark.queries[row.query])
            tile = cell(ranking.benchmark, position, thumb, query_box(ranking.benchmark, row.query))
            _place(canvas, tile, layout.corner(place, 0), "query", SIGNS["query"])
        for column, position in enumerate(row.answers[:columns][row.answers[:columns] >= 0].tolist(), 1):
            kind = kind_of(ranking.benchmark, row.query, position, difficulty)
            label = f"{column} {SIGNS[kind]}{_moved(row, column, position)}"
            _place(canvas, cell(ranking.benchmark, position, thumb, None), layout.corner(place, column), kind, label)
    return jpeg(canvas)


def shown_difficulty(ranking: Ranking) -> Difficulty:
    """Medium where the benchmark has it, otherwise the first that it has."""
    evaluated: list[Difficulty] = [d for d in ranking.benchmark.difficulties if d in ranking.evaluation]
    return "medium" if "medium" in evaluated else evaluated[0]


def chosen_queries(ap: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Up to `count` queries, evenly spread from the highest AP to the lowest; those left out (NaN) last."""
    ranked = np.argsort(-ap, kind="stable")
    ranked = ranked[: max(np.isfinite(ap).sum(), 1)]
    return ranked[np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(np.int64)]


def _rows(ranking: Ranking, query: int, ap: float) -> list[Row]:
    score = f"AP {100 * ap:.1f}" if np.isfinite(ap) else "left out"
    name = _name(ranking.benchmark, query)
    after = ranking.top[query]
    if ranking.before is None:
        return [Row(query, after, score, name)]
    before = ranking.before[query]
    return [Row(query, before, "before", name), Row(query, after, "re-ranked", score, first=False, former=before)]


def _name(benchmark: Benchmark, query: int) -> str:
    return benchmark.source.name(int(benchmark.queries[query]))


def _moved(row: Row, column: int, position: int) -> str:
    """Where re-ranking took an answer from, unless it stayed or came from beyond what was kept."""
    former = [] if row.former is None else row.former.tolist()
    place = former.index(position) + 1 if position in former else column
    return f", was {place}" if place != column else ""


def _place(canvas: Image.Image, tile: Image.Image, corner: tuple[int, int], kind: Kind, label: str) -> None:
    x, y = corner
    side = tile.width + 2 * BORDER
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((x, y, x + side - 1, y + side - 1), COLOURS[kind])
    canvas.paste(tile, (x + BORDER, y + BORDER))
    draw.text((x + side / 2, y + side + LABEL_HEIGHT / 2), label, "#333333", font(13), anchor="mm")


def _describe(draw: ImageDraw.ImageDraw, row: Row, middle: float) -> None:
    """Write the row's title and subtitle at its left, above and below the height `middle`."""
    draw.text((GAP, middle - 2), row.title, "#111111", font(20), anchor="ls")
    subtitle = ending(row.subtitle, draw, 13, TEXT_WIDTH - 2 * GAP)
    draw.text((GAP, middle + 6), subtitle, "#666666", font(13), anchor="lt")

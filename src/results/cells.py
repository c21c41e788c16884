"""One cell of a ranked grid: what an image is to a query, and its picture."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from src.contracts import Benchmark, Difficulty

Box = tuple[float, float, float, float]
Kind = Literal["query", "positive", "negative", "junk"]
COLOURS: dict[Kind, str] = {
    "query": "#2f6fdb",
    "positive": "#2e9e4f",
    "negative": "#d63b3b",
    "junk": "#9a9a9a",
}
SIGNS: dict[Kind, str] = {"query": "query", "positive": "✓", "negative": "✗", "junk": "junk"}


def kind_of(benchmark: Benchmark, query: int, position: int, difficulty: Difficulty) -> Kind:
    """What the gallery image at `position` is to `query`; the query's own image is junk."""
    truth = benchmark.ground_truth
    easy, hard = position in truth.easy[query], position in truth.hard[query]
    # GLDv2's positives are not divided, and stand among the easy ones.
    wanted = {"medium": easy or hard, "hard": hard}.get(difficulty, easy)
    if position == benchmark.queries[query] or position in truth.junk[query]:
        return "junk"
    if wanted:
        return "positive"
    return "junk" if easy or hard else "negative"


def query_box(benchmark: Benchmark, query: int) -> Box | None:
    """The box x1, y1, x2, y2 in pixels to which the query was cropped; None where it was not."""
    if benchmark.crop == "none" or not np.isfinite(benchmark.boxes[query]).all():
        return None
    x1, y1, x2, y2 = benchmark.boxes[query].tolist()
    return x1, y1, x2, y2


def cell(benchmark: Benchmark, position: int, thumb: int, box: Box | None) -> Image.Image:
    """The image at `position` fitted into a square of `thumb` pixels, with `box` drawn in it."""
    tile = Image.new("RGB", (thumb, thumb), "#ededed")
    draw = ImageDraw.Draw(tile)
    try:
        small, scale = _small(benchmark.source.read(position), thumb)
    except Exception:  # A broken file makes Pillow raise nearly anything; the cross is the report.
        draw.rectangle((0, 0, thumb, thumb), "#bdbdbd")
        draw.line((thumb // 4, thumb // 4, 3 * thumb // 4, 3 * thumb // 4), "#5c5c5c", 3)
        draw.line((thumb // 4, 3 * thumb // 4, 3 * thumb // 4, thumb // 4), "#5c5c5c", 3)
        return tile
    left, upper = (thumb - small.width) // 2, (thumb - small.height) // 2
    tile.paste(small, (left, upper))
    if box is not None:
        x1, y1, x2, y2 = (offset + scale * edge for offset, edge in zip((left, upper) * 2, box, strict=True))
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="white", width=4)
        draw.rectangle((x1, y1, x2, y2), outline=COLOURS["query"], width=2)
    return tile


def _small(data: bytes, side: int) -> tuple[Image.Image, float]:
    """An image's first frame, its longer edge `side` pixels now, and the factor by which it was scaled."""
    with Image.open(io.BytesIO(data)) as image:
        longest = max(image.size)
        image.draft("RGB", (side, side))
        # Pillow clips 16 bits to 8 where it should scale them.
        deep = image.mode.startswith("I")
        small = (Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if deep else image).convert("RGB")
        ImageOps.exif_transpose(small, in_place=True)
    scale = side / longest
    size = [max(1, round(edge * side / max(small.size))) for edge in small.size]
    return small.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=2.0), scale

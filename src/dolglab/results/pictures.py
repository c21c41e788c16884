"""Pictures of results: ranked grids, matches and attention as JPEGs, and a run's folder of titled pictures."""

from __future__ import annotations

import base64
import colorsys
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dolglab.contracts import Benchmark, Difficulty, IntArray, LocalFeatures, Ranking
from dolglab.errors import UserError
from dolglab.io import write_bytes, write_text

MAX_BYTES = 600_000
Box = tuple[float, float, float, float]
Kind = Literal["query", "positive", "negative", "junk"]
COLOURS: dict[Kind, str] = {"query": "#2f6fdb", "positive": "#2e9e4f", "negative": "#d63b3b", "junk": "#9a9a9a"}
SIGNS: dict[Kind, str] = {"query": "query", "positive": "✓", "negative": "✗", "junk": "junk"}
# Sizes in a grid, in pixels.
BORDER = 4
TEXT_WIDTH, LABEL_HEIGHT, GAP, QUERY_GAP, NOTE_HEIGHT = 150, 20, 8, 14, 26
# Sizes of two photos with their matches, in pixels, and the largest number of lines drawn.
HEIGHT, MAX_WIDTH, MATCH_GAP, CAPTION_HEIGHT, DOT = 420, 1200, 12, 30, 3
MAX_MATCHES = 60
# An attention map. The strongest hundredth has one colour, because a single peak would leave the rest dark.
MAX_SIDE, SATURATION, HEAT_OPACITY = 1024, 99.0, 0.65
PICTURES, TITLES = "pictures", "titles.json"


@dataclass(frozen=True)
class Layout:
    """The cells of a grid: `thumb` pixels wide and high, `per_query` rows per query, below a header of `header` pixels.

    Also in pixels: the width of the text on the left, the height of the labels below cells, and the gap between cells.
    """

    thumb: int
    per_query: int = 1
    header: int = 0
    text_width: int = TEXT_WIDTH
    label_height: int = LABEL_HEIGHT
    gap: int = GAP

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """The upper left pixel of a cell's border; column 0 is the query."""
        side = self.thumb + 2 * BORDER
        x = self.text_width + column * (side + self.gap) + (QUERY_GAP if column else 0)
        apart = QUERY_GAP * (row // self.per_query) if self.per_query > 1 else 0
        return x, self.header + self.gap + row * (side + self.label_height + self.gap) + apart


@dataclass(frozen=True)
class _Row:
    """A query's answers, best first, with the text beside them.

    `former` are the answers before re-ranking. A row with `former` shows the previous ranks of its answers, and the row
    above it shows the query.
    """

    query: int
    answers: IntArray
    title: str
    subtitle: str
    former: IntArray | None = None


def ranked_grid(
    ranking: Ranking, *, queries: int | Sequence[int] = 8, top: int = 10, thumb: int = 112, notes: Sequence[str] = ()
) -> bytes:
    """A JPEG of queries, each with its `top` first answers.

    `queries` is a list, or a number of queries evenly chosen from the best AP to the worst. Every cell is `thumb`
    pixels square inside its border: blue for the query (with its box, if it was cropped), green for positives, red for
    negatives, grey for junk, at Medium difficulty if the benchmark has it. A query's own image is left out of its
    answers. An image that cannot be read is a grey cell with a cross. A re-ranked query has two rows, before and after.
    `notes` are written above.
    """
    benchmark, difficulty, ap = ranking.benchmark, shown_difficulty(ranking), shown_ap(ranking)
    chosen = chosen_queries(ap, queries) if isinstance(queries, int) else queries
    rows = [row for query in chosen for row in _rows(ranking, query, float(ap[query]))]
    columns = min(top, max(len(row.answers) for row in rows))
    layout = Layout(thumb, 1 if ranking.before is None else 2, NOTE_HEIGHT if notes else 0)
    canvas = Image.new("RGB", layout.corner(len(rows), columns + 1), "white")
    draw = ImageDraw.Draw(canvas)
    if notes:
        draw_text(draw, (GAP, GAP), "; ".join(notes), 14, "#111111", "lt", canvas.width - 2 * GAP)
    for number, row in enumerate(rows):
        middle = layout.corner(number, 0)[1] + BORDER + thumb / 2
        draw_text(draw, (GAP, middle - 2), row.title, 20, "#111111", "ls")
        draw_text(draw, (GAP, middle + 6), row.subtitle, 13, "#666666", "lt", TEXT_WIDTH - 2 * GAP, keep_end=True)
        if row.former is None:
            tile = thumbnail(benchmark, int(benchmark.queries[row.query]), thumb, query_box(benchmark, row.query))
            _paste(canvas, tile, layout.corner(number, 0), "query", SIGNS["query"])
        for column, position in enumerate(row.answers[:columns].tolist(), 1):
            kind = kind_of(benchmark, row.query, position, difficulty)
            label = f"{column} {SIGNS[kind]}{_moved(row, column, position)}"
            _paste(canvas, thumbnail(benchmark, position, thumb), layout.corner(number, column), kind, label)
    return jpeg(canvas)


def _rows(ranking: Ranking, query: int, ap: float) -> list[_Row]:
    score = f"AP {100 * ap:.1f}" if np.isfinite(ap) else "left out"
    name = ranking.benchmark.source.name(int(ranking.benchmark.queries[query]))
    answers = answers_of(ranking.benchmark, query, ranking.top[query])
    if ranking.before is None:
        return [_Row(query, answers, score, name)]
    former = answers_of(ranking.benchmark, query, ranking.before[query])
    return [_Row(query, former, "before", name), _Row(query, answers, "re-ranked", score, former)]


def answers_of(benchmark: Benchmark, query: int, row: IntArray) -> IntArray:
    """The positions in a row of a ranking's head, without padding and without the query's own image."""
    return row[(row >= 0) & (row != benchmark.queries[query])]


def _moved(row: _Row, column: int, position: int) -> str:
    """An answer's rank before re-ranking, if it is known and different."""
    former = [] if row.former is None else row.former.tolist()
    rank = former.index(position) + 1 if position in former else column
    return f", was {rank}" if rank != column else ""


def _paste(canvas: Image.Image, tile: Image.Image, corner: tuple[int, int], kind: Kind, label: str) -> None:
    paste_framed(canvas, tile, corner, kind)
    x, y = corner
    side = tile.width + 2 * BORDER
    draw_text(ImageDraw.Draw(canvas), (x + side / 2, y + side + LABEL_HEIGHT / 2), label, 13, "#333333", "mm")


def shown_difficulty(ranking: Ranking) -> Difficulty:
    """Medium if the benchmark has it, otherwise its first difficulty."""
    evaluated: list[Difficulty] = [d for d in ranking.benchmark.difficulties if d in ranking.evaluation]
    return "medium" if "medium" in evaluated else evaluated[0]


def shown_ap(ranking: Ranking) -> NDArray[np.float64]:
    """Average precision of each query at the shown difficulty, see `ap_at`."""
    return ap_at({name: figures["ap"] for name, figures in ranking.evaluation.items()}, shown_difficulty(ranking))


def ap_at(ap: Mapping[str, ArrayLike], difficulty: str) -> NDArray[np.float64]:
    """Average precision of each query at a difficulty, (Q,); NaN for queries that are left out.

    A figure of all queries together, such as GAP, has none; then it is that of the first figure that has some.
    """
    values = [np.array(ap[name], np.float64) for name in (difficulty, *ap)]
    return next((own for own in values if np.isfinite(own).any()), values[0])


def chosen_queries(ap: NDArray[np.float64], count: int) -> list[int]:
    """Up to `count` queries, evenly spread from the highest AP to the lowest; those left out (NaN) last."""
    ranked = np.argsort(-ap, kind="stable")
    ranked = ranked[: max(np.isfinite(ap).sum(), 1)]
    return ranked[np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(np.int64)].tolist()


def worst_queries(ap: NDArray[np.float64], count: int) -> list[int]:
    """Up to `count` queries, the lowest AP first, without those left out (NaN) unless all are."""
    ranked = np.argsort(ap, kind="stable")
    return ranked[: min(count, max(int(np.isfinite(ap).sum()), 1))].tolist()


def kind_of(benchmark: Benchmark, query: int, position: int, difficulty: Difficulty) -> Kind:
    """The kind of the gallery image at `position` for `query`; the query's own image is junk."""
    truth = benchmark.ground_truth
    easy, hard = position in truth.easy[query], position in truth.hard[query]
    # GLDv2's positives have no difficulty and are stored as easy ones.
    wanted = {"medium": easy or hard, "hard": hard}.get(difficulty, easy)
    if position == benchmark.queries[query] or position in truth.junk[query]:
        return "junk"
    if wanted:
        return "positive"
    return "junk" if easy or hard else "negative"


def query_box(benchmark: Benchmark, query: int) -> Box | None:
    """The box x1, y1, x2, y2 in pixels to which the query was cropped; None if it was not."""
    if benchmark.crop == "none" or not np.isfinite(benchmark.boxes[query]).all():
        return None
    x1, y1, x2, y2 = benchmark.boxes[query].tolist()
    return x1, y1, x2, y2


def thumbnail(benchmark: Benchmark, position: int, thumb: int, box: Box | None = None) -> Image.Image:
    """The image at `position` fitted into a square of `thumb` pixels, with `box` drawn in it."""
    tile = Image.new("RGB", (thumb, thumb), "#ededed")
    draw = ImageDraw.Draw(tile)
    try:
        small, scale = decode_small(benchmark.source.read(position), thumb)
    except Exception:  # A broken file makes Pillow raise nearly anything; the cross shows it.
        draw.rectangle((0, 0, thumb, thumb), "#bdbdbd")
        draw.line((thumb // 4, thumb // 4, 3 * thumb // 4, 3 * thumb // 4), "#5c5c5c", 3)
        draw.line((thumb // 4, 3 * thumb // 4, 3 * thumb // 4, thumb // 4), "#5c5c5c", 3)
        return tile
    left, upper = (thumb - small.width) // 2, (thumb - small.height) // 2
    tile.paste(small, (left, upper))
    if box is not None:
        x1, y1, x2, y2 = (offset + scale * edge for offset, edge in zip((left, upper) * 2, box, strict=True))
        draw_box(draw, (x1, y1, x2, y2))
    return tile


def draw_box(draw: ImageDraw.ImageDraw, box: Box) -> None:
    """Draw the box of a query, in its colour on white."""
    x1, y1, x2, y2 = box
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="white", width=4)
    draw.rectangle(box, outline=COLOURS["query"], width=2)


def decode_small(data: bytes, side: int) -> tuple[Image.Image, float]:
    """An image's first frame, scaled to a longer edge of `side` pixels, and the factor of the scaling."""
    with Image.open(io.BytesIO(data)) as image:
        longest = max(image.size)
        image.draft("RGB", (side, side))
        # Pillow clips 16 bits to 8 instead of scaling them.
        deep = image.mode.startswith("I")
        small = (Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if deep else image).convert("RGB")
        ImageOps.exif_transpose(small, in_place=True)
    scale = side / longest
    size = [max(1, round(edge * side / max(small.size))) for edge in small.size]
    return small.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=2.0), scale


def paste_framed(canvas: Image.Image, tile: Image.Image, corner: tuple[int, int], kind: Kind) -> None:
    """Paste a tile in a border of its kind's colour, whose upper left pixel is `corner`."""
    x, y = corner
    side = tile.width + 2 * BORDER
    ImageDraw.Draw(canvas).rectangle((x, y, x + side - 1, y + side - 1), COLOURS[kind])
    canvas.paste(tile, (x + BORDER, y + BORDER))


def draw_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: str,
    anchor: str,
    width: float = float("inf"),
    keep_end: bool = False,
) -> None:
    """Write the longest beginning (or end) of `text` that fits into `width` pixels, with an ellipsis for the rest.

    The font is matplotlib's copy of DejaVu Sans, so that pictures do not depend on installed fonts.
    """
    import matplotlib as mpl

    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
    if keep_end:
        shorter = [f"…{text[start:]}" for start in range(1, len(text) + 1)]
    else:
        shorter = [f"{text[:end]}…" for end in range(len(text) - 1, -1, -1)]
    fitting = next((words for words in (text, *shorter) if draw.textlength(words, font) <= width), "")
    draw.text(place, fitting, colour, font, anchor=anchor)


def jpeg(image: Image.Image, max_bytes: int = MAX_BYTES) -> bytes:
    """`image` as a JPEG of at most `max_bytes` if possible, without chroma subsampling, which would blur borders."""
    data = b""
    for quality in (90, 80, 70, 60, 50, 40):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, subsampling=0)
        data = file.getvalue()
        if len(data) <= max_bytes:
            break
    return data


def match_figure(
    a: UInt8[np.ndarray, "h1 w1 3"],
    b: UInt8[np.ndarray, "h2 w2 3"],
    features_a: LocalFeatures,
    features_b: LocalFeatures,
    matches: Int[np.ndarray, "m 2"],
    inlier: Bool[np.ndarray, " m"],
    stacked: bool = False,
) -> bytes:
    """A JPEG of two photos side by side, with lines between inlier matches, and their number.

    At most 60 inliers are drawn, evenly chosen. If `stacked`, the first photo is above the second one.
    """
    rows = matches[inlier]
    (first, scale_a), (second, scale_b) = _fitted(a), _fitted(b)
    if stacked:
        width, height = max(first.width, second.width), first.height + MATCH_GAP + second.height
        at_a = np.array([(width - first.width) // 2, 0])
        at_b = np.array([(width - second.width) // 2, first.height + MATCH_GAP])
    else:
        width, height = first.width + MATCH_GAP + second.width, HEIGHT
        at_a = np.array([0, (HEIGHT - first.height) // 2])
        at_b = np.array([first.width + MATCH_GAP, (HEIGHT - second.height) // 2])
    canvas = Image.new("RGB", (width, height + CAPTION_HEIGHT), "white")
    canvas.paste(first, tuple(at_a.tolist()))
    canvas.paste(second, tuple(at_b.tolist()))
    draw = ImageDraw.Draw(canvas)
    chosen = rows[np.linspace(0, len(rows) - 1, min(MAX_MATCHES, len(rows))).round().astype(np.int64)]
    starts = features_a.keypoints[chosen[:, 0]] * scale_a + at_a
    ends = features_b.keypoints[chosen[:, 1]] * scale_b + at_b
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        # The colour depends on the position in the first photo, so that crossing lines stand out.
        along = start[0] / width if stacked else start[1] / HEIGHT
        rgb = colorsys.hsv_to_rgb(0.85 * min(max(along, 0.0), 1.0), 0.9, 1.0)
        colour = "#{:02x}{:02x}{:02x}".format(*(round(255 * part) for part in rgb))
        draw.line((*start, *end), colour, 2)
        for x, y in (start, end):
            draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), colour, "white")
    caption = f"{len(rows)} inliers of {len(matches)} matches"
    draw_text(draw, (MATCH_GAP, height + CAPTION_HEIGHT / 2), caption, 15, "#222222", "lm")
    return jpeg(canvas)


def _fitted(pixels: UInt8[np.ndarray, "h w 3"]) -> tuple[Image.Image, float]:
    """The resized photo, and the factor of the resizing."""
    height, width = pixels.shape[:2]
    scale = min(HEIGHT / height, MAX_WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), scale


def attention_overlay(image: UInt8[np.ndarray, "h w 3"], scores: Float[np.ndarray, "h1 w1"]) -> bytes:
    """A JPEG of `image` in grey, at most 1024 pixels a side, with `scores` overlaid from transparent to yellow.

    `scores` (from 0) form a grid over the whole image, and are interpolated between the centres of its cells.
    Raises ValueError if there are none, or if they are not finite.
    """
    import matplotlib as mpl

    if not scores.size or not np.isfinite(scores).all():
        raise ValueError("an attention map needs scores that are finite numbers")
    photo = Image.fromarray(image)
    photo.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    top = float(np.percentile(scores, SATURATION)) or float(scores.max()) or 1.0
    strength = np.clip(np.asarray(scores, np.float32) / top, 0, 1)
    spread = Image.fromarray(strength).resize(photo.size, Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(spread), 0, 1)
    colour = mpl.colormaps["inferno"](heat)[..., :3] * 255
    grey = np.asarray(photo.convert("L"), np.float32)[..., None]
    opacity = HEAT_OPACITY * heat[..., None]
    return jpeg(Image.fromarray((grey * (1 - opacity) + colour * opacity).round().astype(np.uint8)))


def write_pictures(run: Path, pictures: Sequence[tuple[str, bytes]]) -> None:
    """Write titles and JPEGs as `pictures/01.jpg`, ... and `pictures/titles.json`; nothing if there are none."""
    if not pictures:
        return
    digits = max(2, len(str(len(pictures))))
    names = [f"{number:0{digits}}.jpg" for number in range(1, len(pictures) + 1)]
    for name, (_, image) in zip(names, pictures, strict=True):
        write_bytes(run / PICTURES / name, image)
    titles = {name: title for name, (title, _) in zip(names, pictures, strict=True)}
    write_text(run / PICTURES / TITLES, json.dumps(titles, indent=1, ensure_ascii=False) + "\n")


def read_pictures(run: Path) -> list[tuple[str, bytes]]:
    """The pictures of a run with their titles; without a title, the file name is used.

    Raises UserError if the titles cannot be read.
    """
    listed = run / PICTURES / TITLES
    try:
        titles = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {}
    except ValueError as error:
        raise UserError(f"titles of pictures are not JSON: {listed} ({error})") from error
    if not isinstance(titles, dict):
        raise UserError(f"titles of pictures are not an object of names and titles: {listed}")
    return [
        (str(titles.get(path.name, path.stem)), path.read_bytes()) for path in sorted((run / PICTURES).glob("*.jpg"))
    ]


def data_uri(image: bytes) -> str:
    """An encoded JPEG or PNG as a data URI."""
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"

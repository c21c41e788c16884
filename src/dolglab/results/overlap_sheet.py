"""Contact sheets of training images that show a benchmark's landmarks, for a person to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from dolglab.contracts import Benchmark
from dolglab.results.pictures import BORDER, Box, draw_text, jpeg, paste_framed, thumbnail

# Images beside a probe, and rows on a page.
COLUMNS, ROWS = 6, 6
THUMB, GAP = 160, 10
TEXT_WIDTH, LABEL_HEIGHT, PROBE_GAP, HEADER = 190, 42, 14, 40
SIDE = THUMB + 2 * BORDER


@dataclass(frozen=True)
class SheetImage:
    """An image of a benchmark, with the box that was cut out of it, and two lines that go below it."""

    benchmark: Benchmark
    position: int
    label: str
    name: str
    box: Box | None = None


@dataclass(frozen=True)
class SheetRow:
    """A probe, up to `COLUMNS` training images that match it, best first, and what stands beside them."""

    title: str
    notes: tuple[str, ...]
    probe: SheetImage
    images: tuple[SheetImage, ...]


def contact_sheets(rows: Sequence[SheetRow], heading: str) -> list[bytes]:
    """JPEGs of at most 600 kB with `ROWS` rows each, in their order; the heading gets the page's number."""
    pages = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
    return [_page(page, f"{heading} (page {number} of {len(pages)})") for number, page in enumerate(pages, 1)]


def _page(rows: Sequence[SheetRow], heading: str) -> bytes:
    columns = max(len(row.images) for row in rows)
    canvas = Image.new("RGB", (max(900, _corner(0, columns + 1)[0]), _corner(len(rows), 0)[1]), "white")
    draw = ImageDraw.Draw(canvas)
    draw_text(draw, (GAP, HEADER / 2), heading, 17, "#111111", "lm", canvas.width - 2 * GAP)
    for number, row in enumerate(rows):
        top, room = _corner(number, 0)[1], TEXT_WIDTH - 2 * GAP
        draw_text(draw, (GAP, top + BORDER), row.title, 18, "#111111", "lt", room)
        for line, note in enumerate(row.notes):
            draw_text(draw, (GAP, top + 34 + 20 * line), note, 13, "#666666", "lt", room)
        for column, image in enumerate((row.probe, *row.images)):
            x, y = _corner(number, column)
            tile = thumbnail(image.benchmark, image.position, THUMB, image.box)
            paste_framed(canvas, tile, (x, y), "positive" if column else "query")
            draw_text(draw, (x + SIDE / 2, y + SIDE + 11), image.label, 14, "#111111", "mm", SIDE)
            draw_text(draw, (x + SIDE / 2, y + SIDE + 29), image.name, 12, "#666666", "mm", SIDE, keep_end=True)
    return jpeg(canvas)


def _corner(row: int, column: int) -> tuple[int, int]:
    """The left upper pixel of a picture's border; column 0 is the probe."""
    x = TEXT_WIDTH + column * (SIDE + GAP) + (PROBE_GAP if column else 0)
    return x, HEADER + row * (SIDE + LABEL_HEIGHT + GAP)

"""Contact sheets of training images that show a benchmark's landmarks, for a person to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from dolglab.contracts import Benchmark
from dolglab.results.pictures import COLOURS, Box, Kind, beginning, cell, ending, font, jpeg

# Images beside a probe, and rows on a page.
COLUMNS, ROWS = 6, 6
THUMB, BORDER, GAP = 160, 4, 10
TEXT_WIDTH, LABEL_HEIGHT, PROBE_GAP, HEADER = 190, 42, 14, 40
SIDE = THUMB + 2 * BORDER


@dataclass(frozen=True)
class Picture:
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
    probe: Picture
    images: tuple[Picture, ...]


def contact_sheets(rows: Sequence[SheetRow], heading: str) -> list[bytes]:
    """JPEGs of at most 600 kB with `ROWS` rows each, in their order; the heading gets the page's number."""
    pages = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
    return [_page(page, f"{heading} (page {number} of {len(pages)})") for number, page in enumerate(pages, 1)]


def _page(rows: Sequence[SheetRow], heading: str) -> bytes:
    columns = max(len(row.images) for row in rows)
    canvas = Image.new("RGB", (max(900, _corner(0, columns + 1)[0]), _corner(len(rows), 0)[1]), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, HEADER / 2), beginning(heading, draw, 17, canvas.width - 2 * GAP), "#111111", font(17), anchor="lm")
    for number, row in enumerate(rows):
        _describe(draw, row, _corner(number, 0)[1])
        _place(canvas, row.probe, _corner(number, 0), "query")
        for column, picture in enumerate(row.images, 1):
            _place(canvas, picture, _corner(number, column), "positive")
    return jpeg(canvas)


def _corner(row: int, column: int) -> tuple[int, int]:
    """The left upper pixel of a picture's border; column 0 is the probe."""
    x = TEXT_WIDTH + column * (SIDE + GAP) + (PROBE_GAP if column else 0)
    return x, HEADER + row * (SIDE + LABEL_HEIGHT + GAP)


def _describe(draw: ImageDraw.ImageDraw, row: SheetRow, top: int) -> None:
    room = TEXT_WIDTH - 2 * GAP
    draw.text((GAP, top + BORDER), beginning(row.title, draw, 18, room), "#111111", font(18), anchor="lt")
    for line, note in enumerate(row.notes):
        text = beginning(note, draw, 13, room)
        draw.text((GAP, top + 34 + 20 * line), text, "#666666", font(13), anchor="lt")


def _place(canvas: Image.Image, picture: Picture, corner: tuple[int, int], kind: Kind) -> None:
    x, y = corner
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), COLOURS[kind])
    canvas.paste(cell(picture.benchmark, picture.position, THUMB, picture.box), (x + BORDER, y + BORDER))
    label, name = beginning(picture.label, draw, 14, SIDE), ending(picture.name, draw, 12, SIDE)
    draw.text((x + SIDE / 2, y + SIDE + 11), label, "#111111", font(14), anchor="mm")
    draw.text((x + SIDE / 2, y + SIDE + 29), name, "#666666", font(12), anchor="mm")

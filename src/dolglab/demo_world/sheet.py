"""A contact sheet of a world, drawn from the files on disk."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from dolglab.data.revisited import RevisitedLists, load_ground_truth
from dolglab.errors import UserError
from dolglab.io import atomic_path

RGB = tuple[int, int, int]

WIDTH, MARGIN, GAP, BORDER = 1200, 24, 10, 4
PAPER: RGB = (250, 248, 244)
INK: RGB = (44, 46, 52)
PALE: RGB = (120, 122, 126)
BOX: RGB = (255, 224, 70)
COLOURS: dict[str, RGB] = {"query": INK, "easy": (62, 158, 84), "hard": (236, 138, 34), "junk": (158, 158, 160)}
NOTES = {
    "query": "query, its box in yellow",
    "easy": "easy positive",
    "hard": "hard positive",
    "junk": "junk: too little of the front to count",
}
VIEWS: tuple[Literal["easy", "hard", "junk"], ...] = ("easy", "easy", "hard", "hard", "hard", "junk")


def contact_sheet(
    root: str | Path,
    out: str | Path,
    *,
    split: Literal["validation", "test"] = "test",
    first_family: int = 0,
    families: int = 3,
    columns: int = 4,
) -> Path:
    """Draw look-alike siblings side by side, each with its query, its box, and graded gallery views.

    Takes `families` families from `first_family` on and up to `columns` siblings of each, saves a JPEG 1200
    pixels wide at `out` and returns its path. Raises UserError when `root` holds no demo world, or no such
    family.
    """
    root, out = Path(root), Path(out)
    try:
        family_of = json.loads((root / "families.json").read_text())[split]
    except FileNotFoundError as error:
        raise UserError(f"{root} is not a demo world: {error.filename} is missing") from error
    truth = load_ground_truth(root / split / f"gnd_{split}.pkl")
    groups: dict[str, list[int]] = defaultdict(list)
    for query, name in enumerate(truth.queries):
        groups[family_of[name]].append(query)
    chosen = sorted(groups)[first_family : first_family + families]
    if not chosen:
        raise UserError(f"{root} has {len(groups)} {split} families: first_family={first_family} is beyond them")
    blocks = [_block(root / split / "jpg", truth, groups[family][:columns], columns) for family in chosen]
    header, label = 96, 30
    height = header + sum(block.height + label + GAP for block in blocks) + MARGIN
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 16), "Demo world: look-alike siblings, side by side", INK, ImageFont.load_default(26))
    x, y, font = float(MARGIN), header, ImageFont.load_default(15)
    for kind, note in NOTES.items():
        draw.rectangle((x, 60, x + 16, 74), outline=COLOURS[kind], width=BORDER)
        draw.text((x + 24, 57), note, PALE, font)
        x += 24 + draw.textlength(note, font) + 28
    for family, block in zip(chosen, blocks, strict=True):
        draw.text((MARGIN, y + 6), f"family {family}", INK, ImageFont.load_default(16))
        sheet.paste(block, (MARGIN, y + label))
        y += label + block.height + GAP
    with atomic_path(out) as aside:
        sheet.save(aside, "JPEG", quality=85)
    return out


def _block(folder: Path, truth: RevisitedLists, queries: list[int], columns: int) -> Image.Image:
    """A family's siblings side by side: each one's query, and below it graded views of it."""
    wide = (WIDTH - 2 * MARGIN - (columns - 1) * 2 * GAP) // columns
    small, tall = (wide - 2 * GAP) // 3, wide * 3 // 4
    block = Image.new("RGB", (WIDTH - 2 * MARGIN, tall + 2 * (small + GAP)), PAPER)
    grades = truth.ground_truth
    for column, query in enumerate(queries):
        left = column * (wide + 2 * GAP)
        path = folder / f"{truth.queries[query]}.jpg"
        block.paste(_tile(path, (wide, tall), "query", truth.boxes[query].tolist()), (left, 0))
        views = {"easy": iter(grades.easy[query]), "hard": iter(grades.hard[query]), "junk": iter(grades.junk[query])}
        for place, kind in enumerate(VIEWS):
            position = next(views[kind], None)
            if position is not None:
                corner = (left + place % 3 * (small + GAP), tall + GAP + place // 3 * (small + GAP))
                block.paste(_tile(folder / f"{truth.gallery[position]}.jpg", (small, small), kind), corner)
    return block


def _tile(path: Path, size: tuple[int, int], kind: str, box: list[float] | None = None) -> Image.Image:
    """A picture in its coloured border, in the middle of a tile."""
    with Image.open(path) as file:
        picture = file.convert("RGB")
    room = size[0] - 2 * BORDER, size[1] - 2 * BORDER
    scale = min(room[0] / picture.width, room[1] / picture.height)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    if box is not None:
        left, top, right, bottom = (side * scale for side in box)
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=BOX, width=2)
    tile = Image.new("RGB", size, PAPER)
    left, top = (size[0] - picture.width) // 2, (size[1] - picture.height) // 2
    right, bottom = left + picture.width + BORDER - 1, top + picture.height + BORDER - 1
    ImageDraw.Draw(tile).rectangle((left - BORDER, top - BORDER, right, bottom), fill=COLOURS[kind])
    tile.paste(picture, (left, top))
    return tile

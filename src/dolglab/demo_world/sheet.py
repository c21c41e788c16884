"""A contact sheet of a world, drawn from the files on disk."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any, Literal, NoReturn

from PIL import Image, ImageDraw, ImageFont

from dolglab.errors import UserError

RGB = tuple[int, int, int]

WIDTH = 1200
MARGIN = 24
GAP = 10
BORDER = 4
PAPER: RGB = (250, 248, 244)
INK: RGB = (44, 46, 52)
PALE: RGB = (120, 122, 126)
BOX: RGB = (255, 224, 70)
COLOURS: dict[str, RGB] = {
    "query": (44, 46, 52),
    "easy": (62, 158, 84),
    "hard": (236, 138, 34),
    "junk": (158, 158, 160),
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
    names, groups = _read(root, split)
    chosen = sorted(groups)[first_family : first_family + families]
    if not chosen:
        raise UserError(f"{root} has {len(groups)} {split} families: first_family={first_family} is beyond them")
    blocks = [_block(root / split / "jpg", names, groups[family][:columns], columns) for family in chosen]
    header = 96
    label = 30
    height = header + sum(block.height + label + GAP for block in blocks) + MARGIN
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    _header(sheet)
    y = header
    for family, block in zip(chosen, blocks, strict=True):
        ImageDraw.Draw(sheet).text((MARGIN, y + 6), f"family {family}", INK, _font(16))
        sheet.paste(block, (MARGIN, y + label))
        y += label + block.height + GAP
    return _save(sheet, out)


class _DataOnly(pickle.Unpickler):
    """Reads plain lists, dicts, numbers and strings; refuses anything that would run code."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"unexpected {module_name}.{global_name}")


def _read(root: Path, split: str) -> tuple[list[str], dict[str, list[tuple[str, dict[str, Any]]]]]:
    """Gallery names, and for each family its queries with their ground truth."""
    try:
        families = json.loads((root / "families.json").read_text())[split]
        truth = _DataOnly(io.BytesIO((root / split / f"gnd_{split}.pkl").read_bytes())).load()
    except FileNotFoundError as error:
        raise UserError(f"{root} is not a demo world: {error.filename} is missing") from error
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, entry in zip(truth["qimlist"], truth["gnd"], strict=True):
        groups.setdefault(families[name], []).append((name, entry))
    return truth["imlist"], groups


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _header(sheet: Image.Image) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 16), "Demo world: look-alike siblings, side by side", INK, _font(26))
    x = float(MARGIN)
    notes = {
        "query": "query, its box in yellow",
        "easy": "easy positive",
        "hard": "hard positive",
        "junk": "junk: too little of the front to count",
    }
    for kind, note in notes.items():
        draw.rectangle((x, 60, x + 16, 74), outline=COLOURS[kind], width=BORDER)
        draw.text((x + 24, 57), note, PALE, _font(15))
        x += 24 + draw.textlength(note, _font(15)) + 28


def _block(folder: Path, names: list[str], queries: list[tuple[str, dict[str, Any]]], columns: int) -> Image.Image:
    wide = (WIDTH - 2 * MARGIN - (columns - 1) * 2 * GAP) // columns
    small = (wide - 2 * GAP) // 3
    tall, low = wide * 3 // 4, small
    block = Image.new("RGB", (WIDTH - 2 * MARGIN, tall + 2 * (low + GAP)), PAPER)
    for column, (name, entry) in enumerate(queries):
        left = column * (wide + 2 * GAP)
        block.paste(_tile(folder / f"{name}.jpg", (wide, tall), "query", entry["bbx"]), (left, 0))
        used = dict.fromkeys(COLOURS, 0)
        for place, kind in enumerate(VIEWS):
            if used[kind] < len(entry[kind]):
                picture = folder / f"{names[entry[kind][used[kind]]]}.jpg"
                corner = (left + place % 3 * (small + GAP), tall + GAP + place // 3 * (low + GAP))
                block.paste(_tile(picture, (small, low), kind), corner)
                used[kind] += 1
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
    frame = (
        left - BORDER,
        top - BORDER,
        left + picture.width + BORDER - 1,
        top + picture.height + BORDER - 1,
    )
    ImageDraw.Draw(tile).rectangle(frame, fill=COLOURS[kind])
    tile.paste(picture, (left, top))
    return tile


def _save(sheet: Image.Image, out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        sheet.save(aside, "JPEG", quality=85)
        os.replace(aside, out)
    finally:
        aside.unlink(missing_ok=True)
    return out

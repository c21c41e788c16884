"""The demo world on disk: training images as GLDv2-clean, benchmarks as Revisited Oxford and Paris; a contact sheet."""

from __future__ import annotations

import csv
import json
import pickle
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dolglab.concurrency import process_map
from dolglab.data.revisited import RevisitedLists, load_ground_truth
from dolglab.demo_world.grammar import RGB
from dolglab.demo_world.shoot import Job, Shot, intents, shoot
from dolglab.errors import UserError
from dolglab.io import atomic_path

FORMAT, RECORD = 1, "world.json"
GLDV2_CLASSES = 203_094
# Smallest sizes; 1 for all others.
MINIMUM = {"seed": 0, "validation_distractors": 0, "test_distractors": 0, "width": 64, "height": 64}
DISTRACTORS_PER_JOB = 10
# The contact sheet: sizes in pixels, colours, and the views below each query.
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


def write_world(
    root: str | Path,
    *,
    seed: int = 0,
    train_families: int = 30,
    validation_families: int = 6,
    test_families: int = 12,
    siblings: int = 4,
    train_views: int = 10,
    gallery_views: int = 9,
    validation_distractors: int = 60,
    test_distractors: int = 150,
    width: int = 256,
    height: int = 192,
    workers: int = 2,
) -> Path:
    """Draw a world of landmarks into `root` and return its path.

    A family is a set of `siblings` look-alike landmarks; training, validation and test have different families. A
    landmark has `train_views` training pictures, or one query and `gallery_views` gallery pictures, of `width` by
    `height` pixels, some in portrait format. The files depend on the seed and the sizes, not on `workers`.

    Raises UserError for sizes that are too small, and if `root` contains anything other than this world.
    """
    # All other arguments determine the pictures, and are stored with them.
    sizes: dict[str, int] = {name: value for name, value in locals().items() if name not in ("root", "workers")}
    root = Path(root)
    for name, value in {**sizes, "workers": workers}.items():
        if value < MINIMUM.get(name, 1):
            raise UserError(f"{name} must be at least {MINIMUM.get(name, 1)}, not {value}")
    record = {"demo_world": FORMAT, **sizes}
    if _is_this_world(root, record):
        print(f"{root} already contains this world")
        return root
    with atomic_path(root) as folder:
        folder.mkdir()
        summary = _write(folder, sizes, workers)
        (folder / RECORD).write_text(json.dumps(record, indent=1))
    print(f"{root}: {summary}")
    return root


def _is_this_world(root: Path, record: dict[str, int]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        same = json.loads((root / RECORD).read_text()) == record
        wrong = "" if same else f"{root} is a demo world with other settings"
    except OSError:
        wrong = f"{root} exists and is not a demo world"
    except ValueError:
        wrong = f"{root / RECORD} is not readable"
    if wrong:
        raise UserError(f"{wrong}: use another root, or delete this one")
    return True


def _write(folder: Path, sizes: dict[str, int], workers: int) -> str:
    jobs = list(_jobs(folder, sizes))
    shots: dict[str, list[Shot]] = defaultdict(list)
    # OpenCV must not start threads in worker processes.
    drawn = process_map(shoot, jobs, workers, "drawing", partial(cv2.setNumThreads, 1), unit="photos")
    for job, some in zip(jobs, drawn, strict=True):
        shots[job.split].extend(some)
    families = {"train": _write_training(folder, shots["train"], sizes["seed"])}
    families |= {split: _write_benchmark(folder, split, shots[split]) for split in ("validation", "test")}
    (folder / "families.json").write_text(json.dumps(families, indent=1))
    parts = [f"{len(shots['train'])} training images of {len(families['train'])} landmarks"]
    for split in ("validation", "test"):
        queries = sizes[f"{split}_families"] * sizes["siblings"]
        parts.append(f"{split} {queries} queries and {len(shots[split]) - queries} gallery images")
    return ", ".join(parts)


def _jobs(folder: Path, sizes: dict[str, int]) -> Iterator[Job]:
    common = {"folder": str(folder), **{name: sizes[name] for name in ("seed", "width", "height")}}
    for split in ("train", "validation", "test"):
        wanted = intents(split, sizes["train_views" if split == "train" else "gallery_views"])
        for index in range(sizes[f"{split}_families"]):
            yield Job(split=split, index=index, count=sizes["siblings"], intents=wanted, **common)
    for split in ("validation", "test"):
        total = sizes[f"{split}_distractors"]
        for start in range(0, total, DISTRACTORS_PER_JOB):
            yield Job(split=split, index=start, count=min(DISTRACTORS_PER_JOB, total - start), **common)


def _write_training(folder: Path, shots: list[Shot], seed: int) -> dict[str, str]:
    """Write `train_clean.csv`; return the family of each landmark id."""
    members: dict[tuple[str, int], list[str]] = defaultdict(list)
    for shot in shots:
        members[shot.family, shot.sibling].append(shot.name)
    rng = np.random.default_rng([seed, 8, 0, 0, 1])
    numbers = rng.choice(max(GLDV2_CLASSES, 10 * len(members)), len(members), replace=False).tolist()
    rows = sorted(
        (number, " ".join(sorted(names)), family)
        for number, ((family, _), names) in zip(numbers, members.items(), strict=True)
    )
    with (folder / "train_clean.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("landmark_id", "images"))
        writer.writerows(row[:2] for row in rows)
    return {str(number): family for number, _, family in rows}


def _write_benchmark(folder: Path, split: str, shots: list[Shot]) -> dict[str, str]:
    """Write `gnd_SPLIT.pkl`; return the family of each image."""
    queries = sorted((s for s in shots if s.sibling >= 0 and s.grade is None), key=lambda shot: shot.name)
    gallery = sorted((s for s in shots if s.sibling < 0 or s.grade is not None), key=lambda shot: shot.name)
    truth = []
    for query in queries:
        lists: dict[str, Any] = {"bbx": list(query.box), "easy": [], "hard": [], "junk": []}
        for position, shot in enumerate(gallery):
            if (shot.family, shot.sibling) == (query.family, query.sibling) and shot.grade is not None:
                lists[shot.grade].append(position)
        truth.append(lists)
    names = {"imlist": [s.name for s in gallery], "qimlist": [s.name for s in queries]}
    with (folder / split / f"gnd_{split}.pkl").open("wb") as file:
        pickle.dump({**names, "gnd": truth}, file, protocol=2)
    return {shot.name: shot.family for shot in sorted(shots, key=lambda shot: shot.name)}


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

    Draws `families` families from `first_family` on, with up to `columns` siblings each, to a JPEG 1200 pixels wide at
    `out`, and returns its path. Raises UserError if `root` is not a demo world, or has no such family.
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
        raise UserError(f"{root} has only {len(groups)} {split} families: reduce first_family={first_family}")
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
    """The siblings of a family side by side: the query of each, and graded views below it."""
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
    """A picture with a coloured border, in the middle of a tile."""
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

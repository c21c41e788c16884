"""The demo world on disk: a training set as GLDv2-clean, and two benchmarks as Revisited Oxford and Paris."""

from __future__ import annotations

import csv
import json
import pickle
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dolglab.concurrency import process_map
from dolglab.demo_world.shoot import Job, Shot, intents, limit_opencv_threads, shoot
from dolglab.errors import UserError
from dolglab.io import atomic_path

FORMAT, RECORD = 1, "world.json"
GLDV2_CLASSES = 203_094
# Smallest sizes; 1 of those that are not here.
MINIMUM = {"seed": 0, "validation_distractors": 0, "test_distractors": 0, "width": 64, "height": 64}
DISTRACTORS_PER_JOB = 10


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

    Families are sets of `siblings` look-alike landmarks; training, validation and test share none. Every
    landmark has `train_views` training pictures, or one query and `gallery_views` gallery pictures of `width`
    by `height` pixels, some upright. The files depend on the seed and the sizes, not on `workers`.

    Raises UserError for sizes that make no sense, and when `root` holds anything but this very world.
    """
    sizes: dict[str, int] = {name: value for name, value in locals().items() if name not in ("root", "workers")}
    root = Path(root)
    for name, value in {**sizes, "workers": workers}.items():
        if value < MINIMUM.get(name, 1):
            raise UserError(f"{name} must be at least {MINIMUM.get(name, 1)}, not {value}")
    record = {"demo_world": FORMAT, **sizes}
    if _is_this_world(root, record):
        print(f"{root} already holds this world")
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
        wrong = "" if same else f"{root} is a demo world of other sizes"
    except OSError:
        wrong = f"{root} exists and is not a demo world"
    except ValueError:
        wrong = f"{root / RECORD} is not readable"
    if wrong:
        raise UserError(f"{wrong}: name another root, or delete this one yourself")
    return True


def _write(folder: Path, sizes: dict[str, int], workers: int) -> str:
    jobs = list(_jobs(folder, sizes))
    shots: dict[str, list[Shot]] = defaultdict(list)
    for job, some in zip(jobs, process_map(shoot, jobs, workers, "drawing", limit_opencv_threads), strict=True):
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

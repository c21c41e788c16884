"""The pictures of one family of landmarks, or of a few distractors: the unit of work of one process."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from dolglab.demo_world.building import build
from dolglab.demo_world.camera import Grade, grade
from dolglab.demo_world.grammar import sample_family
from dolglab.demo_world.photo import Picture
from dolglab.demo_world.render import render
from dolglab.demo_world.surroundings import Props, make_props
from dolglab.demo_world.views import Intent, sample_view, wanted_view

Split = Literal["train", "validation", "test"]
_FAMILIES = {"train": 1, "validation": 2, "test": 3}
_DISTRACTORS = {"train": 4, "validation": 5, "test": 6}
_STREET_EVERY = 4


@dataclass(frozen=True)
class Job:
    """`count` siblings of family `index`, or the distractors `index` to `index + count - 1`."""

    folder: str
    seed: int
    split: Split
    index: int
    count: int
    width: int
    height: int
    intents: tuple[Intent, ...] = ()


@dataclass(frozen=True)
class Shot:
    """One picture on disk. `sibling` is -1 for a distractor; `grade` is against the landmark's first shot."""

    name: str
    family: str
    sibling: int
    grade: Grade | None
    box: tuple[float, float, float, float]


def train_intents(views: int) -> tuple[Intent, ...]:
    """What the training pictures of a landmark are meant to be: a clean set, so without junk."""
    cycle: tuple[Intent, ...] = ("query", "hard", "easy", "hard")
    return tuple(cycle[index % len(cycle)] for index in range(views))


def gallery_intents(views: int) -> tuple[Intent, ...]:
    """What the query and then the gallery pictures of a landmark are meant to be."""
    cycle: tuple[Intent, ...] = ("easy", "hard", "junk", "easy", "hard", "easy", "hard", "easy", "hard")
    return ("query", *(cycle[index % len(cycle)] for index in range(views)))


def shoot(job: Job) -> list[Shot]:
    """Draw the job's pictures and write them; the record comes in a fixed order."""
    props = make_props(job.seed)
    return _shoot_family(job, props) if job.intents else _shoot_distractors(job, props)


def limit_opencv_threads() -> None:
    """For a worker process: OpenCV takes no threads of its own."""
    cv2.setNumThreads(1)


def _shoot_family(job: Job, props: Props) -> list[Shot]:
    code, family = _FAMILIES[job.split], f"{job.split}-{job.index:03d}"
    shots = []
    for sibling, landmark in enumerate(sample_family(_rng(job.seed, code, job.index), job.count)):
        building = build(_rng(job.seed, code, job.index, sibling + 1), landmark)
        query = None
        for number, intent in enumerate(job.intents):
            rng = _rng(job.seed, code, job.index, sibling + 1, number + 1)
            view, sight, angle = wanted_view(rng, building, props, intent, job.width, job.height, query)
            query = query or view.camera
            name = _name(job.seed, code, job.index, sibling, number)
            _save(job, name, render(rng, view, building), view.lens.quality)
            found = grade(sight.share, sight.size, angle) if number else None
            shots.append(Shot(name, family, sibling, found, sight.box))
    return shots


def _shoot_distractors(job: Job, props: Props) -> list[Shot]:
    code, shots = _DISTRACTORS[job.split], []
    for index in range(job.index, job.index + job.count):
        rng = _rng(job.seed, code, index)
        intent: Intent = ("query", "easy", "hard")[rng.integers(3)]
        name = _name(job.seed, code, index, 0, 0)
        if index % _STREET_EVERY == 0:
            building = None
            view = sample_view(rng, None, props, intent, job.width, job.height)
        else:
            building = build(rng, sample_family(rng, 1)[0])
            view, _, _ = wanted_view(rng, building, props, intent, job.width, job.height)
        _save(job, name, render(rng, view, building), view.lens.quality)
        shots.append(Shot(name, f"{job.split}-distractor", -1, None, (0.0, 0.0, 0.0, 0.0)))
    return shots


def _rng(seed: int, *key: int) -> np.random.Generator:
    """A generator for one thing. The key is padded, as a seed sequence ignores trailing zeros."""
    return np.random.default_rng([seed, *key, *[0] * (4 - len(key)), 1])


def _name(seed: int, *key: int) -> str:
    """A 16-hex name that tells nothing about what is in the picture."""
    return sha256("/".join(map(str, (seed, *key))).encode()).hexdigest()[:16]


def _save(job: Job, name: str, picture: Picture, quality: int) -> None:
    folders = ("train", *name[:3]) if job.split == "train" else (job.split, "jpg")
    path = Path(job.folder, *folders, f"{name}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality))
    path.write_bytes(data.tobytes())

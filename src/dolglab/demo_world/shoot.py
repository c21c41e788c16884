"""The pictures of a family of landmarks, or of a few distractors: the unit of work of a process.

Cameras and surroundings are sampled until a picture has the intended grade.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from dolglab.demo_world.building import Building, build
from dolglab.demo_world.camera import Camera, Grade, Point, grade, project, view_angle
from dolglab.demo_world.grammar import sample_family
from dolglab.demo_world.render import NEAREST, Picture, Sight, View, look, render, sample_lens, sample_weather
from dolglab.demo_world.surroundings import Props, apparent_width, make_props, neighbours, occluders, street

Split = Literal["train", "validation", "test"]
Intent = Literal["query", "easy", "hard", "junk"]
# The intended grades, repeated: a training set without junk, and a gallery.
TRAINING: tuple[Intent, ...] = ("query", "hard", "easy", "hard")
GALLERY: tuple[Intent, ...] = ("easy", "hard", "junk", "easy", "hard", "easy", "hard", "easy", "hard")
_FAMILIES = {"train": 1, "validation": 2, "test": 3}
_DISTRACTORS = {"train": 4, "validation": 5, "test": 6}
_STREET_EVERY = 4
# Most views sampled per picture.
MAX_TRIES = 41


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
    """A picture on disk. `sibling` is -1 for a distractor; `grade` is relative to the landmark's first shot."""

    name: str
    family: str
    sibling: int
    grade: Grade | None
    box: tuple[float, float, float, float]


def intents(split: Split, views: int) -> tuple[Intent, ...]:
    """The intended grades of a landmark's pictures: for training, or a query and its gallery."""
    if split == "train":
        return tuple(TRAINING[index % len(TRAINING)] for index in range(views))
    return ("query", *(GALLERY[index % len(GALLERY)] for index in range(views)))


def shoot(job: Job) -> list[Shot]:
    """Draw and write the job's pictures; the shots are in a fixed order."""
    props = make_props(job.seed)
    return _shoot_family(job, props) if job.intents else _shoot_distractors(job, props)


def wanted_view(
    rng: np.random.Generator,
    building: Building,
    props: Props,
    intent: Intent,
    width: int,
    height: int,
    query: Camera | None = None,
) -> tuple[View, Sight, float]:
    """Sample views until one has the grade `intent` relative to `query`; otherwise the last one.

    Returns the view, what it shows, and the angle in degrees between its line of sight and the query's. Without a
    query, the angle is to the front's normal.
    """
    straight = query or Camera((0.0, -60.0, building.height / 2), building.centre, 1.0, 1, 1)
    corners = np.concatenate([surface.plane.corners() for surface in building.surfaces])
    wanted = "easy" if intent == "query" else intent
    tries = 0
    while True:
        view = sample_view(rng, building, props, intent, width, height)
        sight, angle = look(view, building), view_angle(view.camera, straight, building.centre)
        tries += 1
        # All corners must be in front of the camera.
        whole = (project(view.camera, corners)[1] > NEAREST).all()
        if (whole and grade(sight.share, sight.size, angle) == wanted) or tries == MAX_TRIES:
            return view, sight, angle


def sample_view(
    rng: np.random.Generator, building: Building | None, props: Props, intent: Intent, width: int, height: int
) -> View:
    """Sample a view intended as `intent`; without a building, a street. Its grade follows from the geometry."""
    stance = _stance(rng, intent)
    extent = (building.width, building.depth, building.top) if building else (30.0, 8.0, 12.0)
    if rng.random() < (0.6 if extent[2] > 1.1 * extent[0] else 0.08):
        width, height = height, width
    camera = _camera(rng, stance, extent, width, height)
    sprites = neighbours(rng, camera, props, extent, stance.azimuth)
    sprites += occluders(rng, camera, props, extent, stance.trees, stance.small)
    if building is None:
        sprites += street(rng, props)
    return View(camera, tuple(sprites), sample_weather(rng), sample_lens(rng))


@dataclass(frozen=True)
class _Stance:
    """Azimuth in degrees from the front's normal, share of the picture to fill, offset of the aim, occluders."""

    azimuth: float
    fill: float
    aim: float
    trees: int
    small: int


def _stance(rng: np.random.Generator, intent: Intent) -> _Stance:
    side = float(rng.choice([-1.0, 1.0]))
    if intent == "query":
        return _Stance(side * rng.uniform(0, 28), rng.uniform(0.84, 1.02), 0.04, 0, int(rng.integers(0, 4)))
    if intent == "easy":
        trees, small = int(rng.integers(0, 2)), int(rng.integers(0, 5))
        return _Stance(side * rng.uniform(0, 40), rng.uniform(0.7, 1.05), 0.07, trees, small)
    # All are sampled, and one is chosen.
    if intent == "hard":
        return (
            _Stance(side * rng.uniform(36, 60), rng.uniform(0.75, 1.1), 0.1, int(rng.integers(0, 2)), 3),
            _Stance(side * rng.uniform(0, 55), rng.uniform(0.45, 0.62), 0.35, int(rng.integers(0, 2)), 3),
            _Stance(side * rng.uniform(0, 50), rng.uniform(1.25, 1.8), 0.24, 0, 2),
            _Stance(side * rng.uniform(0, 50), rng.uniform(0.72, 1.0), 0.1, int(rng.integers(2, 5)), 4),
        )[rng.integers(4)]
    return (
        _Stance(side * rng.uniform(95, 180), rng.uniform(0.5, 0.95), 0.1, int(rng.integers(0, 2)), 3),
        _Stance(side * rng.uniform(0, 60), rng.uniform(0.9, 1.6), 0.95, int(rng.integers(0, 3)), 4),
        _Stance(side * rng.uniform(0, 70), rng.uniform(0.45, 0.8), 0.2, int(rng.integers(7, 11)), 4),
    )[rng.integers(3)]


def _camera(rng: np.random.Generator, stance: _Stance, extent: Point, width: int, height: int) -> Camera:
    wide, deep, top = extent
    focal = max(width, height) / (2 * np.tan(np.radians(rng.uniform(44, 66)) / 2))
    angle = np.radians(stance.azimuth)
    nearest = abs(np.sin(angle)) * wide / 2 if abs(stance.azimuth) < 90 else deep
    fit = focal * max(apparent_width(extent, stance.azimuth) / width, top / height) / stance.fill
    distance = max(fit + nearest * 0.6, nearest + 5.0)
    eye = rng.uniform(1.5, 2.6) if rng.random() < 0.75 else rng.uniform(4, 11)
    away = np.array([np.sin(angle), -np.cos(angle)])
    sideways = np.array([np.cos(angle), np.sin(angle)])
    middle = away * (-deep / 2) * abs(np.sin(angle))
    ground = middle + away * distance
    reach = width / focal * fit / 2
    aim = middle + sideways * reach * stance.aim * rng.uniform(-1, 1) * (1 if stance.aim < 0.9 else 1.6)
    level = top * rng.uniform(0.38, 0.5)
    position, target = (*ground.tolist(), float(eye)), (*aim.tolist(), float(level))
    return Camera(position, target, float(focal), width, height, float(np.radians(rng.normal(0, 1.6))))


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
    """A generator for a key, which is padded, since a seed sequence ignores trailing zeros."""
    return np.random.default_rng([seed, *key, *[0] * (4 - len(key)), 1])


def _name(seed: int, *key: int) -> str:
    """A name of 16 hexadecimal digits that reveals nothing about the picture."""
    return sha256("/".join(map(str, (seed, *key))).encode()).hexdigest()[:16]


def _save(job: Job, name: str, picture: Picture, quality: int) -> None:
    folders = ("train", *name[:3]) if job.split == "train" else (job.split, "jpg")
    path = Path(job.folder, *folders, f"{name}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality))
    path.write_bytes(data.tobytes())

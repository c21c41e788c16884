"""Views of a landmark: where the camera stands and what is around, drawn until a picture shows what is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dolglab.demo_world.building import Building
from dolglab.demo_world.camera import Camera, Point, grade, view_angle
from dolglab.demo_world.photo import sample_lens, sample_weather
from dolglab.demo_world.render import Sight, View, look, sees_whole_planes
from dolglab.demo_world.surroundings import Props, apparent_width, street, surround

Intent = Literal["query", "easy", "hard", "junk"]
# Views that are drawn for one picture.
MAX_TRIES = 41


def wanted_view(
    rng: np.random.Generator,
    building: Building,
    props: Props,
    intent: Intent,
    width: int,
    height: int,
    query: Camera | None = None,
) -> tuple[View, Sight, float]:
    """Draw views until one turns out as `intent` beside `query`; the last one if none does.

    Returns the view, what it shows, and the degrees between its line of sight and the query's. Without a
    query the view is measured against the front's normal.
    """
    straight = query or Camera((0.0, -60.0, building.height / 2), building.centre, 1.0, 1, 1)
    wanted = "easy" if intent == "query" else intent
    tries = 0
    while True:
        view = sample_view(rng, building, props, intent, width, height)
        sight, angle = look(view, building), view_angle(view.camera, straight, building.centre)
        tries += 1
        fits = sees_whole_planes(view.camera, building) and grade(sight.share, sight.size, angle) == wanted
        if fits or tries == MAX_TRIES:
            return view, sight, angle


def sample_view(
    rng: np.random.Generator, building: Building | None, props: Props, intent: Intent, width: int, height: int
) -> View:
    """Draw a view meant as `intent`; without a building, a street. Geometry decides afterwards what it is."""
    stance = _stance(rng, intent)
    extent = (building.width, building.depth, building.top) if building else (30.0, 8.0, 12.0)
    if rng.random() < (0.6 if extent[2] > 1.1 * extent[0] else 0.08):
        width, height = height, width
    camera = _camera(rng, stance, extent, width, height)
    sprites = surround(rng, camera, props, extent, stance.azimuth, stance.trees, stance.small)
    if building is None:
        sprites += street(rng, props)
    return View(camera, tuple(sprites), sample_weather(rng), sample_lens(rng))


@dataclass(frozen=True)
class _Stance:
    """Azimuth in degrees from the front's normal, share of the picture to fill, aim off centre, occluders."""

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
    # All are drawn and one is taken.
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

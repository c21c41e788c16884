"""Where a picture is taken from, and what else stands about, so that a view turns out as wanted."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from src.data.demo_world.building import Building, Sprite
from src.data.demo_world.camera import Array, Camera, Point
from src.data.demo_world.photo import Lens, Weather, sample_lens, sample_weather
from src.data.demo_world.props import Figure, Props

Intent = Literal["query", "easy", "hard", "junk"]


@dataclass(frozen=True)
class View:
    """A camera, the figures around the landmark, the light and the lens."""

    camera: Camera
    sprites: tuple[Sprite, ...]
    weather: Weather
    lens: Lens


@dataclass(frozen=True)
class _Stance:
    """Azimuth in degrees from the front's normal, share of the picture to fill, aim off centre, occluders."""

    azimuth: float
    fill: float
    aim: float
    trees: int
    small: int


def sample_view(
    rng: np.random.Generator, building: Building | None, props: Props, intent: Intent, width: int, height: int
) -> View:
    """Draw a view meant as `intent`; without a building, a street. Geometry decides afterwards what it is."""
    stance = _stance(rng, intent)
    extent = (building.width, building.depth, building.top) if building else (30.0, 8.0, 12.0)
    if rng.random() < (0.6 if extent[2] > 1.1 * extent[0] else 0.08):
        width, height = height, width
    camera = _camera(rng, stance, extent, width, height)
    sprites = (
        *_neighbours(rng, camera, stance, extent, props),
        *_occluders(rng, camera, stance, extent, props),
    )
    if building is None:
        sprites = (*sprites, *_street(rng, camera, props))
    return View(camera, sprites, sample_weather(rng), sample_lens(rng))


def _stance(rng: np.random.Generator, intent: Intent) -> _Stance:
    side = float(rng.choice([-1.0, 1.0]))
    if intent == "query":
        return _Stance(side * rng.uniform(0, 28), rng.uniform(0.84, 1.02), 0.04, 0, int(rng.integers(0, 4)))
    if intent == "easy":
        trees, small = int(rng.integers(0, 2)), int(rng.integers(0, 5))
        return _Stance(side * rng.uniform(0, 40), rng.uniform(0.7, 1.05), 0.07, trees, small)
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
    across = abs(np.cos(angle)) * wide + abs(np.sin(angle)) * deep
    nearest = abs(np.sin(angle)) * wide / 2 if abs(stance.azimuth) < 90 else deep
    fit = focal * max(across / width, top / height) / stance.fill
    distance = max(fit + nearest * 0.6, nearest + 5.0)
    eye = rng.uniform(1.5, 2.6) if rng.random() < 0.75 else rng.uniform(4, 11)
    away = np.array([np.sin(angle), -np.cos(angle)])
    sideways = np.array([np.cos(angle), np.sin(angle)])
    middle = away * (-deep / 2) * abs(np.sin(angle))
    ground = middle + away * distance
    reach = width / focal * fit / 2
    aim = middle + sideways * reach * stance.aim * rng.uniform(-1, 1) * (1 if stance.aim < 0.9 else 1.6)
    level = top * rng.uniform(0.38, 0.5)
    return Camera(
        (float(ground[0]), float(ground[1]), float(eye)),
        (float(aim[0]), float(aim[1]), float(level)),
        float(focal),
        width,
        height,
        float(np.radians(rng.normal(0, 1.6))),
    )


def _set(figure: Figure, spot: Array, size: float = 1.0) -> Sprite:
    return Sprite((float(spot[0]), float(spot[1]), 0.0), figure.width * size, figure.height * size, figure.texture)


def _neighbours(rng: np.random.Generator, camera: Camera, stance: _Stance, extent: Point, props: Props) -> list[Sprite]:
    """Houses and trees beside and behind the landmark, laid out anew for every picture."""
    eye = np.array(camera.position[:2])
    forward = -eye / np.linalg.norm(eye)
    right = np.array([forward[1], -forward[0]])
    wide, deep, _ = extent
    angle = np.radians(stance.azimuth)
    half = (abs(np.cos(angle)) * wide + abs(np.sin(angle)) * deep) / 2
    beyond = float(np.hypot(wide, deep)) * 0.5 + deep * 0.5
    sprites = []
    for side in (-1, 1):
        across = half + rng.uniform(1, 9)
        for _ in range(int(rng.integers(0, 3))):
            house = props.houses[rng.integers(len(props.houses))]
            spot = right * side * (across + house.width / 2) + forward * (beyond * rng.uniform(0.5, 1.0))
            sprites.append(_set(house, spot, float(rng.uniform(0.85, 1.2))))
            across += house.width + rng.uniform(0, 5)
    for _ in range(int(rng.integers(2, 8))):
        pool = props.houses if rng.random() < 0.65 else props.trees
        spot = right * rng.uniform(-60, 60) + forward * (beyond + rng.uniform(6, 45))
        sprites.append(_set(pool[rng.integers(len(pool))], spot, float(rng.uniform(0.9, 1.5))))
    return sprites


def _occluders(rng: np.random.Generator, camera: Camera, stance: _Stance, extent: Point, props: Props) -> list[Sprite]:
    eye = np.array(camera.position[:2])
    aim = np.array(camera.target[:2])
    forward = (aim - eye) / np.linalg.norm(aim - eye)
    right = np.array([forward[1], -forward[0]])
    distance = float(np.linalg.norm(aim - eye))
    sprites = []

    def stand(pool: tuple[Figure, ...], nearest: float, farthest: float, size: float = 1.0) -> None:
        depth = distance * rng.uniform(nearest, farthest)
        if depth > 4:
            spot = eye + forward * depth + right * depth * camera.width / camera.focal * rng.uniform(-0.5, 0.5)
            if -0.5 - extent[0] / 2 > spot[0] or spot[0] > extent[0] / 2 + 0.5 or spot[1] < -1.0:
                sprites.append(_set(pool[rng.integers(len(pool))], spot, size))

    for _ in range(stance.trees):
        stand(props.trees, 0.4, 0.8, float(rng.uniform(0.8, 1.25)))
    for _ in range(stance.small):
        kind = rng.random()
        if kind < 0.6:
            stand(props.people, 0.3, 0.92)
        elif kind < 0.8:
            stand(props.cars, 0.4, 0.85)
        else:
            stand(props.lamps, 0.4, 0.85)
    return sprites


def _street(rng: np.random.Generator, camera: Camera, props: Props) -> list[Sprite]:
    """A row of houses or of trees where a landmark would stand."""
    pool = props.houses if rng.random() < 0.7 else props.trees
    sprites, across = [], -40.0
    while across < 40:
        figure = pool[rng.integers(len(pool))]
        sprites.append(
            _set(
                figure,
                np.array([across + figure.width / 2, rng.uniform(-2, 6)]),
                float(rng.uniform(0.9, 1.3)),
            )
        )
        across += figure.width * 1.1 + float(rng.exponential(2.0))
    return sprites

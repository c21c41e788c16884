"""The surroundings of a landmark: plain neighbours, trees, passers-by, cars and lamps, as upright figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from dolglab.demo_world import paint
from dolglab.demo_world.building import Sprite
from dolglab.demo_world.camera import Array, Camera, Point
from dolglab.demo_world.grammar import ROOFS, TRIMS, WALLS, pick
from dolglab.demo_world.paint import Panel, blank, fill_box, fill_circle, fill_polygon, shade


@dataclass(frozen=True)
class Props:
    """The figures for all pictures of a world, so that none identifies a landmark."""

    houses: tuple[Panel, ...]
    trees: tuple[Panel, ...]
    people: tuple[Panel, ...]
    cars: tuple[Panel, ...]
    lamps: tuple[Panel, ...]


@lru_cache(maxsize=1)
def make_props(seed: int) -> Props:
    """All figures of the world with this seed; cached, since all jobs of a process use the same ones."""
    rng = np.random.default_rng([seed, 9, 0, 0, 0])
    return Props(
        houses=tuple(_house(rng) for _ in range(14)),
        trees=tuple(_tree(rng, index % 3) for index in range(10)),
        people=tuple(_person(rng) for _ in range(10)),
        cars=tuple(_car(rng) for _ in range(8)),
        lamps=tuple(_lamp(rng) for _ in range(2)),
    )


def street(rng: np.random.Generator, props: Props) -> list[Sprite]:
    """A row of houses or trees in place of a landmark."""
    pool = props.houses if rng.random() < 0.7 else props.trees
    sprites, across = [], -40.0
    while across < 40:
        figure = pick(rng, pool)
        spot = np.array([across + figure.width / 2, rng.uniform(-2, 6)])
        sprites.append(_stand(figure, spot, float(rng.uniform(0.9, 1.3))))
        across += figure.width * 1.1 + float(rng.exponential(2.0))
    return sprites


def apparent_width(extent: Point, azimuth: float) -> float:
    """Apparent width in metres of a box (width, depth, height) at an azimuth in degrees from its front's normal."""
    angle = np.radians(azimuth)
    return float(abs(np.cos(angle)) * extent[0] + abs(np.sin(angle)) * extent[1])


def neighbours(rng: np.random.Generator, camera: Camera, props: Props, extent: Point, azimuth: float) -> list[Sprite]:
    """Houses and trees beside and behind a landmark `extent` metres wide, deep and high.

    `azimuth` is the camera's, in degrees from the normal of the landmark's front.
    """
    _, forward, right = _towards(camera, (0.0, 0.0))
    half = apparent_width(extent, azimuth) / 2
    beyond = float(np.hypot(extent[0], extent[1])) * 0.5 + extent[1] * 0.5
    sprites = []
    for side in (-1, 1):
        across = half + rng.uniform(1, 9)
        for _ in range(int(rng.integers(0, 3))):
            house = pick(rng, props.houses)
            spot = right * side * (across + house.width / 2) + forward * (beyond * rng.uniform(0.5, 1.0))
            sprites.append(_stand(house, spot, float(rng.uniform(0.85, 1.2))))
            across += house.width + rng.uniform(0, 5)
    for _ in range(int(rng.integers(2, 8))):
        pool = props.houses if rng.random() < 0.65 else props.trees
        spot = right * rng.uniform(-60, 60) + forward * (beyond + rng.uniform(6, 45))
        sprites.append(_stand(pick(rng, pool), spot, float(rng.uniform(0.9, 1.5))))
    return sprites


def occluders(
    rng: np.random.Generator, camera: Camera, props: Props, extent: Point, trees: int, small: int
) -> list[Sprite]:
    """Trees in front of the landmark, and `small` passers-by, cars and lamps."""
    eye = np.array(camera.position[:2])
    distance, forward, right = _towards(camera, camera.target[:2])
    sprites = []

    def place(pool: tuple[Panel, ...], nearest: float, farthest: float, size: float = 1.0) -> None:
        depth = distance * rng.uniform(nearest, farthest)
        if depth > 4:
            spot = eye + forward * depth + right * depth * camera.width / camera.focal * rng.uniform(-0.5, 0.5)
            # Not inside the landmark.
            if abs(spot[0]) > extent[0] / 2 + 0.5 or spot[1] < -1.0:
                sprites.append(_stand(pick(rng, pool), spot, size))

    for _ in range(trees):
        place(props.trees, 0.4, 0.8, float(rng.uniform(0.8, 1.25)))
    for _ in range(small):
        kind = rng.random()
        if kind < 0.6:
            place(props.people, 0.3, 0.92)
        else:
            place(props.cars if kind < 0.8 else props.lamps, 0.4, 0.85)
    return sprites


def _stand(figure: Panel, spot: Array, size: float) -> Sprite:
    return Sprite((float(spot[0]), float(spot[1]), 0.0), figure.width * size, figure.height * size, figure.canvas)


def _towards(camera: Camera, spot: tuple[float, float]) -> tuple[float, Array, Array]:
    """Ground distance in metres from the camera to a point, and unit vectors, (2,), towards it and to its right."""
    line = np.array(spot) - np.array(camera.position[:2])
    distance = float(np.linalg.norm(line))
    forward = line / distance
    return distance, forward, np.array([forward[1], -forward[0]])


def _house(rng: np.random.Generator) -> Panel:
    scale = 11.0
    width, height = float(rng.uniform(9, 17)), float(rng.uniform(8, 15))
    roof = float(rng.uniform(1.5, 4.0))
    figure = blank(width, height + roof, scale)
    canvas = figure.canvas
    rows, columns = canvas.shape[:2]
    eaves = round(roof * scale)
    wall, trim = pick(rng, WALLS), pick(rng, TRIMS)
    material = str(rng.choice(["plaster", "brick", "ashlar"]))
    canvas[eaves:] = paint.masonry(rng, (columns, rows - eaves), scale, material, wall, trim)
    inset = rng.uniform(0, 0.5) * columns * 0.6
    tiles = paint.masonry(rng, (columns, eaves), scale, "brick", pick(rng, ROOFS), trim)
    mask = np.zeros_like(tiles)
    fill_polygon(mask, [(inset, 0), (columns - inset, 0), (columns, eaves), (0, eaves)], trim)
    solid = mask[..., 3] > 0
    canvas[:eaves][solid] = tiles[solid]
    opening = str(rng.choice(["rect", "segment", "round"]))
    storeys, bays = max(2, round(height / 3.6)), int(rng.integers(3, 6))
    step, pitch = (rows - eaves) / storeys, columns / bays
    for storey in range(storeys):
        for bay in range(bays):
            x, y = (bay + 0.3) * pitch, eaves + (storey + 0.25) * step
            box = (round(x), round(y), round(x + 0.4 * pitch), round(y + 0.5 * step))
            paint.window(canvas, box, opening, (62, 70, 84), trim)
    paint.cornice(canvas, eaves, 5, trim)
    return figure


def _tree(rng: np.random.Generator, form: int) -> Panel:
    width, height = (4.6, 7.0) if form == 0 else (2.4, 8.0) if form == 1 else (5.4, 6.0)
    figure = blank(width, height, 18.0)
    canvas = figure.canvas
    rows, columns = canvas.shape[:2]
    middle = columns / 2
    trunk = [(middle - 4, rows * 0.5), (middle + 4, rows * 0.5), (middle + 6, rows), (middle - 6, rows)]
    fill_polygon(canvas, trunk, (92, 68, 48))
    leaf = np.array(pick(rng, ((74, 112, 52), (96, 128, 58), (60, 100, 66), (150, 120, 48)))) + rng.integers(-10, 11, 3)
    centre, reach = np.array([middle, rows * 0.38]), np.array([columns * 0.34, rows * 0.27])
    for layer, tone in enumerate((0.62, 0.78, 0.95, 1.16)):
        offset = np.array([-0.06, -0.07]) * layer * reach
        for _ in range(46 - 8 * layer):
            angle, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1)) * (1 - 0.13 * layer)
            spot = centre + offset + reach * far * np.array([np.cos(angle), np.sin(angle)])
            r, g, b = np.clip(leaf * tone * rng.uniform(0.93, 1.07), 0, 255).astype(int).tolist()
            fill_circle(canvas, spot, columns * rng.uniform(0.05, 0.12), (r, g, b))
    return figure


def _person(rng: np.random.Generator) -> Panel:
    figure = blank(0.8, 1.75, 60.0)
    canvas = figure.canvas
    rows, columns = canvas.shape[:2]
    coat = tuple(rng.integers(30, 220, 3).tolist())
    legs = tuple(rng.integers(25, 110, 3).tolist())
    skin = pick(rng, ((236, 198, 168), (198, 150, 116), (126, 84, 60)))
    middle = columns // 2
    stride = int(rng.integers(2, 8))
    for side in (-1, 1):
        hip, foot = middle + side * 4, middle + side * (4 + stride)
        fill_polygon(canvas, [(hip - 5, rows * 0.55), (hip + 5, rows * 0.55), (foot + 4, rows), (foot - 4, rows)], legs)
    hem = rows * 0.62
    fill_polygon(canvas, [(middle - 12, 26), (middle + 12, 26), (middle + 15, hem), (middle - 15, hem)], coat)
    fill_circle(canvas, (middle, 15), 10, skin)
    hair = pick(rng, ((50, 36, 28), (120, 84, 48), (30, 28, 30), (190, 186, 180)))
    canvas[4:12, middle - 9 : middle + 9] = (*hair, 255)
    return figure


def _car(rng: np.random.Generator) -> Panel:
    figure = blank(4.2, 1.55, 40.0)
    canvas = figure.canvas
    rows, columns = canvas.shape[:2]
    paintwork = ((180, 40, 40), (40, 70, 130), (230, 230, 226), (40, 42, 46), (196, 190, 170), (70, 110, 90))
    colour = pick(rng, paintwork)
    cabin = [(0.2, 0.45), (0.32, 0.02), (0.7, 0.02), (0.86, 0.45)]
    fill_polygon(canvas, np.array(cabin) * (columns, rows), shade(colour, 0.9))
    glass = [(0.26, 0.42), (0.35, 0.1), (0.67, 0.1), (0.79, 0.42)]
    fill_polygon(canvas, np.array(glass) * (columns, rows), (70, 84, 98))
    fill_box(canvas, (round(columns * 0.5), 2, round(columns * 0.53), rows // 2), shade(colour, 0.9))
    fill_box(canvas, (4, round(rows * 0.42), columns - 4, round(rows * 0.8)), colour)
    fill_box(canvas, (4, round(rows * 0.7), columns - 4, round(rows * 0.8)), shade(colour, 0.6))
    for part in (0.22, 0.78):
        fill_circle(canvas, (columns * part, rows * 0.8), rows * 0.2, (28, 28, 30))
        fill_circle(canvas, (columns * part, rows * 0.8), rows * 0.1, (170, 170, 172))
    return figure


def _lamp(rng: np.random.Generator) -> Panel:
    figure = blank(1.0, 5.0, 40.0)
    canvas = figure.canvas
    rows, columns = canvas.shape[:2]
    iron = tuple(rng.integers(24, 60, 3).tolist())
    middle = columns // 2
    cv2.line(canvas, (middle, 30), (middle, rows), (*iron, 255), 4)
    fill_polygon(canvas, [(middle - 9, 30), (middle + 9, 30), (middle + 12, 8), (middle - 12, 8)], (244, 224, 160))
    fill_polygon(canvas, [(middle - 14, 9), (middle + 14, 9), (middle, 0)], iron)
    fill_box(canvas, (middle - 7, rows - 16, middle + 7, rows), iron)
    return figure

"""What stands around a landmark: plain neighbours, trees, passers-by, cars and lamps, as upright figures."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from src.data.demo_world import paint
from src.data.demo_world.grammar import RGB, ROOFS, TRIMS, WALLS
from src.data.demo_world.paint import Canvas, fill_box, fill_circle, fill_polygon, shade


@dataclass(frozen=True)
class Figure:
    """A painted figure and its size in metres."""

    texture: Canvas
    width: float
    height: float


@dataclass(frozen=True)
class Props:
    """The figures all pictures of a world choose from, so that none betrays a landmark."""

    houses: tuple[Figure, ...]
    trees: tuple[Figure, ...]
    people: tuple[Figure, ...]
    cars: tuple[Figure, ...]
    lamps: tuple[Figure, ...]


@lru_cache(maxsize=1)
def make_props(seed: int) -> Props:
    """All figures of the world with this seed; kept, as a process asks for the same ones with every job."""
    rng = np.random.default_rng([seed, 9, 0, 0, 0])
    return Props(
        houses=tuple(_house(rng) for _ in range(14)),
        trees=tuple(_tree(rng, index % 3) for index in range(10)),
        people=tuple(_person(rng) for _ in range(10)),
        cars=tuple(_car(rng) for _ in range(8)),
        lamps=tuple(_lamp(rng) for _ in range(2)),
    )


def _choice(rng: np.random.Generator, colours: tuple[RGB, ...]) -> RGB:
    return colours[rng.integers(len(colours))]


def _blank(width: float, height: float, scale: float) -> Canvas:
    return np.zeros((round(height * scale), round(width * scale), 4), np.uint8)


def _house(rng: np.random.Generator) -> Figure:
    scale = 11.0
    width, height = float(rng.uniform(9, 17)), float(rng.uniform(8, 15))
    roof = float(rng.uniform(1.5, 4.0))
    canvas = _blank(width, height + roof, scale)
    rows, columns = canvas.shape[:2]
    eaves = round(roof * scale)
    wall, trim = _choice(rng, WALLS), _choice(rng, TRIMS)
    material = str(rng.choice(["plaster", "brick", "ashlar"]))
    canvas[eaves:] = paint.masonry(rng, (columns, rows - eaves), scale, material, wall, trim)
    inset = rng.uniform(0, 0.5) * columns * 0.6
    tiles = paint.masonry(rng, (columns, eaves), scale, "brick", _choice(rng, ROOFS), trim)
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
    return Figure(canvas, width, height + roof)


def _tree(rng: np.random.Generator, form: int) -> Figure:
    width, height = (4.6, 7.0) if form == 0 else (2.4, 8.0) if form == 1 else (5.4, 6.0)
    canvas = _blank(width, height, 18.0)
    rows, columns = canvas.shape[:2]
    middle = columns / 2
    fill_polygon(
        canvas,
        [(middle - 4, rows * 0.5), (middle + 4, rows * 0.5), (middle + 6, rows), (middle - 6, rows)],
        (92, 68, 48),
    )
    leaf = np.array([(74, 112, 52), (96, 128, 58), (60, 100, 66), (150, 120, 48)])[rng.integers(4)]
    leaf = leaf + rng.integers(-10, 11, 3)
    centre, reach = np.array([middle, rows * 0.38]), np.array([columns * 0.34, rows * 0.27])
    for layer, tone in enumerate((0.62, 0.78, 0.95, 1.16)):
        offset = np.array([-0.06, -0.07]) * layer * reach
        for _ in range(46 - 8 * layer):
            angle, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1)) * (1 - 0.13 * layer)
            spot = centre + offset + reach * far * np.array([np.cos(angle), np.sin(angle)])
            r, g, b = np.clip(leaf * tone * rng.uniform(0.93, 1.07), 0, 255).astype(int).tolist()
            fill_circle(canvas, (spot[0], spot[1]), columns * rng.uniform(0.05, 0.12), (r, g, b))
    return Figure(canvas, width, height)


def _person(rng: np.random.Generator) -> Figure:
    canvas = _blank(0.8, 1.75, 60.0)
    rows, columns = canvas.shape[:2]
    coat = tuple(rng.integers(30, 220, 3).tolist())
    legs = tuple(rng.integers(25, 110, 3).tolist())
    skin = [(236, 198, 168), (198, 150, 116), (126, 84, 60)][rng.integers(3)]
    middle = columns // 2
    stride = int(rng.integers(2, 8))
    for side in (-1, 1):
        hip, foot = middle + side * 4, middle + side * (4 + stride)
        fill_polygon(canvas, [(hip - 5, rows * 0.55), (hip + 5, rows * 0.55), (foot + 4, rows), (foot - 4, rows)], legs)
    fill_polygon(
        canvas,
        [(middle - 12, 26), (middle + 12, 26), (middle + 15, rows * 0.62), (middle - 15, rows * 0.62)],
        coat,
    )
    fill_circle(canvas, (middle, 15), 10, skin)
    hair = [(50, 36, 28), (120, 84, 48), (30, 28, 30), (190, 186, 180)][rng.integers(4)]
    canvas[4:12, middle - 9 : middle + 9] = (*hair, 255)
    return Figure(canvas, 0.8, 1.75)


def _car(rng: np.random.Generator) -> Figure:
    canvas = _blank(4.2, 1.55, 40.0)
    rows, columns = canvas.shape[:2]
    paintwork = [(180, 40, 40), (40, 70, 130), (230, 230, 226), (40, 42, 46), (196, 190, 170), (70, 110, 90)]
    colour = paintwork[rng.integers(len(paintwork))]
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
    return Figure(canvas, 4.2, 1.55)


def _lamp(rng: np.random.Generator) -> Figure:
    canvas = _blank(1.0, 5.0, 40.0)
    rows, columns = canvas.shape[:2]
    iron = tuple(rng.integers(24, 60, 3).tolist())
    middle = columns // 2
    cv2.line(canvas, (middle, 30), (middle, rows), (*iron, 255), 4)
    fill_polygon(canvas, [(middle - 9, 30), (middle + 9, 30), (middle + 12, 8), (middle - 12, 8)], (244, 224, 160))
    fill_polygon(canvas, [(middle - 14, 9), (middle + 14, 9), (middle, 0)], iron)
    fill_box(canvas, (middle - 7, rows - 16, middle + 7, rows), iron)
    return Figure(canvas, 1.0, 5.0)

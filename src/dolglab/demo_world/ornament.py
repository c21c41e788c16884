"""What stands around a landmark: plain neighbours, trees, passers-by, cars and lamps, as upright figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np

from dolglab.demo_world import paint
from dolglab.demo_world.grammar import RGB, ROOFS, TRIMS, WALLS
from dolglab.demo_world.paint import Canvas, fill_box, fill_circle, fill_polygon, shade


def emblem(
    canvas: Canvas,
    centre: tuple[float, float],
    radius: float,
    kind: tuple[str, int],
    colour: RGB,
    ground: RGB,
    trim: RGB,
) -> None:
    """A round medallion of `radius` pixels: a figure (name, number of its parts) in `colour` on `ground`."""
    fill_circle(canvas, centre, radius * 1.18, shade(trim, 0.6))
    fill_circle(canvas, centre, radius * 1.12, trim)
    fill_circle(canvas, centre, radius * 0.96, ground)
    name, parts = kind
    _FIGURES[name](canvas, np.asarray(centre, float), radius * 0.86, parts, colour, ground)


def _spokes(centre: np.ndarray, radius: float, parts: int, offset: float = 0.0) -> np.ndarray:
    angles = np.arange(parts) * 2 * np.pi / parts - np.pi / 2 + offset
    return centre + radius * np.column_stack([np.cos(angles), np.sin(angles)])


def _rose(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    petal = radius * min(0.34, 1.75 / parts)
    for x, y in _spokes(centre, radius * 0.66, parts):
        fill_circle(canvas, (x, y), petal, colour)
    fill_circle(canvas, (centre[0], centre[1]), radius * 0.3, colour)
    fill_circle(canvas, (centre[0], centre[1]), radius * 0.14, ground)


def _star(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    tips = _spokes(centre, radius, parts)
    dents = _spokes(centre, radius * (0.42 if parts < 7 else 0.55), parts, np.pi / parts)
    fill_polygon(canvas, np.stack([tips, dents], axis=1).reshape(-1, 2), colour)


def _clock(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    fill_circle(canvas, (centre[0], centre[1]), radius, (246, 240, 222))
    for x, y in _spokes(centre, radius * 0.8, 12):
        fill_circle(canvas, (x, y), radius * 0.09, ground if sum(ground) < 600 else (40, 36, 40))
    for length, angle in ((0.55, -0.9), (0.75, 1.2)):
        tip = centre + radius * length * np.array([np.cos(angle), np.sin(angle)])
        start, end = centre.round().astype(int).tolist(), tip.round().astype(int).tolist()
        cv2.line(canvas, start, end, (30, 28, 34, 255), max(2, round(radius * 0.16)))


def _shield(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    half = np.array([[0, -0.75], [0.68, -0.75], [0.66, 0.1], [0.4, 0.6], [0, 0.95]]) * radius
    fill_polygon(canvas, centre + half, colour)
    fill_polygon(canvas, centre + half * (-1, 1), (244, 238, 222) if sum(colour) < 600 else shade(ground, 1.6))
    x, y = centre.round().astype(int).tolist()
    fill_box(canvas, (x - round(0.66 * radius), y - round(0.28 * radius), x + round(0.66 * radius), y), ground)


def _cross(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    x, y = centre.round().astype(int).tolist()
    arm, thick = round(radius * 0.88), max(2, round(radius * 0.24))
    fill_box(canvas, (x - thick, y - arm, x + thick, y + arm), colour)
    fill_box(canvas, (x - arm, y - thick, x + arm, y + thick), colour)


def _sun(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    base = _spokes(centre, radius * 0.5, parts, np.pi / parts)
    for index, tip in enumerate(_spokes(centre, radius, parts)):
        fill_polygon(canvas, [base[index - 1], tip, base[index]], colour)
    fill_circle(canvas, (centre[0], centre[1]), radius * 0.46, colour)


def _crescent(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    fill_circle(canvas, (centre[0] - 0.06 * radius, centre[1]), radius * 0.86, colour)
    fill_circle(canvas, (centre[0] + 0.34 * radius, centre[1] - 0.08 * radius), radius * 0.68, ground)


def _lozenge(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    for factor, tone in ((0.96, colour), (0.6, ground), (0.34, colour)):
        fill_polygon(canvas, _spokes(centre, radius * factor, 4), tone)


def _foil(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    for x, y in _spokes(centre, radius * 0.46, parts):
        fill_circle(canvas, (x, y), radius * 0.46, colour)


def _wheel(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    thick = max(2, round(radius * 0.16))
    x, y = centre.round().astype(int).tolist()
    cv2.circle(canvas, (x, y), round(radius * 0.82), (*colour, 255), thick)
    for tip in _spokes(centre, radius * 0.8, parts):
        cv2.line(canvas, (x, y), tip.round().astype(int).tolist(), (*colour, 255), thick)
    fill_circle(canvas, (centre[0], centre[1]), radius * 0.24, colour)


def _crown(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    points = [[-0.8, 0.55], [-0.8, -0.5], [-0.4, -0.05], [0, -0.72], [0.4, -0.05], [0.8, -0.5], [0.8, 0.55]]
    fill_polygon(canvas, centre + np.array(points) * radius, colour)


_FIGURES = {
    "rose": _rose,
    "star": _star,
    "clock": _clock,
    "shield": _shield,
    "cross": _cross,
    "sun": _sun,
    "crescent": _crescent,
    "lozenge": _lozenge,
    "foil": _foil,
    "wheel": _wheel,
    "crown": _crown,
}


def frieze(canvas: Canvas, top: int, bottom: int, kind: str, colour: RGB, trim: RGB) -> None:
    """A band of ornament across the whole wall between two rows; the pattern is centred."""
    strip = canvas[top:bottom]
    height, width = strip.shape[:2]
    fill_box(strip, (0, 0, width, height), trim if kind != "plain" else colour)
    edges = np.linspace(0, width, max(1, round(width / (height * 1.25))) + 1)
    middle = height / 2
    for index, (left, right) in enumerate(pairwise(edges)):
        centre, half = (left + right) / 2, (right - left) / 2
        if kind == "zigzag":
            fill_polygon(strip, [[left, height], [centre, 0], [right, height]], colour)
        elif kind == "checks":
            upper = 0 if index % 2 else round(middle)
            fill_box(strip, (round(left), upper, round(right), upper + round(middle)), colour)
        elif kind == "dots":
            fill_circle(strip, (centre, middle), height * 0.36, colour)
        elif kind == "arches":
            fill_circle(strip, (centre, height), half * 0.8, colour)
        elif kind == "lozenges":
            fill_polygon(strip, [[left, middle], [centre, 0], [right, middle], [centre, height]], colour)
        elif kind == "stripes":
            fill_box(strip, (round(left), 0, round(centre), height), colour)
    edge = max(1, height // 9)
    for y in (0, height - edge):
        fill_box(strip, (0, y, width, y + edge), shade(trim, 0.8))
    below = canvas[bottom : bottom + 2 * edge, :, :3]
    below[:] = (below * 0.7).astype(np.uint8)


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

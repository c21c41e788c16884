"""Layout of the walls of a landmark: which part stands where, and the textures that come of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dolglab.demo_world import paint
from dolglab.demo_world.grammar import Details, Landmark, Style
from dolglab.demo_world.ornament import emblem, frieze
from dolglab.demo_world.paint import Canvas, fill_box, shade

TEXTURE_HEIGHT = 360
FRIEZE = 1.15

Region = tuple[float, float, float, float]
"""Left, lower, right and upper edge in metres: x from the middle of a wall, z from the ground."""


@dataclass(frozen=True)
class Wall:
    """A texture and its size in metres."""

    texture: Canvas
    width: float
    height: float


def texture_scale(style: Style) -> float:
    """Pixels a metre at which a family's walls are painted."""
    return min(22.0, TEXTURE_HEIGHT / style.height)


def front_wall(rng: np.random.Generator, landmark: Landmark) -> Wall:
    """The wall with doors, windows, frieze, balcony, banners and, where it belongs there, the emblem."""
    style, details = landmark.style, landmark.details
    scale = texture_scale(style)
    canvas = _plain_wall(rng, style, style.width, scale)
    emblem_spot = _emblem_spot(style, details)
    doors = _door_boxes(style, details)
    _columns(canvas, style, details, scale, doors)
    for storey in range(style.storeys):
        blocked = doors if storey == 0 else []
        if emblem_spot is not None:
            x, z, r = emblem_spot
            blocked = [*blocked, (x - 1.3 * r, z - 1.25 * r, x + 1.3 * r, z + 1.25 * r)]
        _windows(canvas, landmark, storey, scale, blocked)
    _trim(canvas, style, details, scale)
    for box in doors:
        paint.door(
            canvas,
            _pixels(box, scale, style.width, style.height),
            details.door,
            details.door_colour,
            style.trim,
        )
    if details.balcony is not None:
        half, z = style.width * 0.2, details.balcony * style.storey + 0.15
        paint.balcony(canvas, _pixels((-half, z, half, z + 1.0), scale, style.width, style.height), style.trim)
    if details.banner is not None:
        _banners(canvas, style, details, scale)
    if emblem_spot is not None:
        _emblem(canvas, emblem_spot, landmark, scale, style.width, style.height)
    return Wall(canvas, style.width, style.height)


def side_wall(rng: np.random.Generator, landmark: Landmark) -> Wall:
    """A flank: the family's windows and the landmark's frieze, without doors or emblem."""
    style, details = landmark.style, landmark.details
    scale = texture_scale(style) * 0.75
    canvas = _plain_wall(rng, style, style.depth, scale)
    pitch = style.width / details.bays
    edges = _bay_edges(style.depth, max(2, round(style.depth / pitch)))
    for storey in range(style.storeys):
        for x in (edges[:-1] + edges[1:]) / 2:
            width, height = min(1.6, pitch * 0.42), style.storey * 0.5
            z = (storey + 0.28) * style.storey
            box = _pixels((x - width / 2, z, x + width / 2, z + height), scale, style.depth, style.height)
            paint.window(canvas, box, style.opening, style.glass, style.trim)
    _trim(canvas, style, details, scale)
    return Wall(canvas, style.depth, style.height)


def back_wall(rng: np.random.Generator, style: Style) -> Wall:
    """A wall without openings, as wide as the front."""
    return Wall(_plain_wall(rng, style, style.width, texture_scale(style) * 0.5), style.width, style.height)


def tower_wall(rng: np.random.Generator, landmark: Landmark, centre: bool) -> Wall:
    """One wall of a tower; a tower in the centre carries the door and the emblem of the front it hides."""
    style, details = landmark.style, landmark.details
    scale = min(texture_scale(style), TEXTURE_HEIGHT * 1.2 / style.tower_height)
    width, height = style.tower_width, style.tower_height
    canvas = paint.masonry(
        rng, (round(width * scale), round(height * scale)), scale, style.material, style.wall, style.trim
    )
    _plinth(canvas, scale, style)
    if style.quoins:
        paint.quoins(canvas, scale, style.trim)
    belfry = _pixels((-width * 0.22, height - 3.9, width * 0.22, height - 1.2), scale, width, height)
    paint.window(canvas, belfry, style.opening, shade(style.glass, 0.7), style.trim)
    _band(canvas, height - 5.4, details, style, scale, height)
    if centre:
        radius = min(1.75, width * 0.33)
        _emblem(canvas, (0.0, height - 5.9 - radius * 1.2, radius), landmark, scale, width, height)
        box = (-width * 0.22, 0.0, width * 0.22, min(3.4, style.storey * 0.75))
        paint.door(canvas, _pixels(box, scale, width, height), details.door, details.door_colour, style.trim)
    else:
        for z in np.arange(2.2, height - 7.5, 3.6):
            slit = _pixels((-0.35, float(z), 0.35, float(z) + 1.5), scale, width, height)
            paint.window(canvas, slit, style.opening, style.glass, style.trim)
    paint.cornice(canvas, 0, max(3, round(0.4 * scale)), style.trim)
    return Wall(canvas, width, height)


def crown_wall(rng: np.random.Generator, landmark: Landmark) -> Wall | None:
    """The gable on the front wall, in the family's shape, with the emblem where it belongs there."""
    style = landmark.style
    if style.crown == "none":
        return None
    scale = texture_scale(style)
    width = style.width if style.roof == "saddle" else style.width * (0.62 if style.crown == "attic" else 0.5)
    height = crown_height(style)
    size = round(width * scale), round(height * scale)
    wall = paint.masonry(rng, size, scale, style.material, style.wall, style.trim)
    canvas = np.zeros_like(wall)
    shape = crown_outline(style.crown) * size
    paint.fill_polygon(canvas, shape, style.trim)
    inner = np.zeros_like(wall)
    centre = np.array([size[0] / 2, size[1]])
    rim = 1 - 0.55 * scale / size[1]
    paint.fill_polygon(inner, (shape - centre) * (rim - 0.02, rim) + centre, style.trim)
    inside = inner[..., 3] > 0
    canvas[inside] = wall[inside]
    if style.emblem_place == "crown":
        radius = min(2.3, height * (0.29 if style.crown == "triangle" else 0.33))
        _emblem(canvas, (0.0, height * 0.4, radius), landmark, scale, width, height)
    return Wall(canvas, width, height)


def crown_height(style: Style) -> float:
    """Metres from the top of the front wall to the top of its gable; 0 without one."""
    factor = {"none": 0.0, "triangle": 0.36, "stepped": 0.42, "bell": 0.42, "attic": 0.24}[style.crown]
    if style.roof == "saddle":
        return style.width * factor
    return min(6.5, max(4.2, style.width * factor * 0.62)) if factor else 0.0


def crown_outline(shape: str) -> np.ndarray:
    """(n, 2) outline of a gable in the unit square, y down."""
    if shape == "triangle":
        return np.array([[0, 1], [0.5, 0], [1, 1]], float)
    if shape == "attic":
        return np.array([[0.04, 1], [0.04, 0.16], [0.0, 0.16], [0.0, 0], [1, 0], [1, 0.16], [0.96, 0.16], [0.96, 1]])
    if shape == "stepped":
        left = [
            [0, 1],
            [0, 0.74],
            [0.13, 0.74],
            [0.13, 0.5],
            [0.26, 0.5],
            [0.26, 0.25],
            [0.39, 0.25],
            [0.39, 0],
        ]
    else:
        t = np.linspace(0, 1, 14)
        left = np.column_stack([0.5 * t**0.8, 0.5 + 0.5 * np.cos(np.pi * t**0.85)]).tolist()
    half = np.asarray(left, float)
    return np.vstack([half, (half * (-1, 1) + (1, 0))[::-1]])


def _pixels(box: Region, scale: float, width: float, height: float) -> paint.Box:
    """A region of a wall of `width` x `height` metres in the pixels of its texture."""
    left, right = ((x + width / 2) * scale for x in (box[0], box[2]))
    top, bottom = ((height - z) * scale for z in (box[3], box[1]))
    return round(left), round(top), round(right), round(bottom)


def _bay_edges(width: float, bays: int) -> np.ndarray:
    edge = min(0.9, width * 0.06)
    return np.linspace(edge - width / 2, width / 2 - edge, bays + 1)


def _plain_wall(rng: np.random.Generator, style: Style, width: float, scale: float) -> Canvas:
    size = round(width * scale), round(style.height * scale)
    canvas = paint.masonry(rng, size, scale, style.material, style.wall, style.trim)
    _plinth(canvas, scale, style)
    if style.quoins:
        paint.quoins(canvas, scale, style.trim)
    return canvas


def _plinth(canvas: Canvas, scale: float, style: Style) -> None:
    height, width = canvas.shape[:2]
    top = height - round(0.7 * scale)
    fill_box(canvas, (0, top, width, height), shade(style.wall, 0.62))
    fill_box(canvas, (0, top, width, top + 3), shade(style.trim, 0.9))


def _door_boxes(style: Style, details: Details) -> list[Region]:
    height = min(4.4, style.storey * 0.74)
    width = min(2.9, max(1.7, height * 0.62), style.width / (details.doors * 2))
    middles = {1: (0.0,), 2: (-0.25, 0.25), 3: (-0.3, 0.0, 0.3)}[details.doors]
    return [(m * style.width - width / 2, 0.0, m * style.width + width / 2, height) for m in middles]


def _emblem_spot(style: Style, details: Details) -> tuple[float, float, float] | None:
    if style.emblem_place != "middle" or details.towers == "centre":
        return None
    radius = min(2.5, style.storey * 0.44, style.width * 0.17)
    return 0.0, style.height - style.storey * 0.56, radius


def _emblem(
    canvas: Canvas,
    spot: tuple[float, float, float],
    landmark: Landmark,
    scale: float,
    width: float,
    height: float,
) -> None:
    details = landmark.details
    centre = (spot[0] + width / 2) * scale, (height - spot[1]) * scale
    emblem(canvas, centre, spot[2] * scale, details.emblem, *details.emblem_colours, landmark.style.trim)


def _overlaps(one: Region, other: Region) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _openings(style: Style, details: Details, storey: int) -> list[tuple[Region, str]]:
    """Windows of one storey as (region, shape), in the landmark's rhythm."""
    z, tall = (storey + 0.27) * style.storey, style.storey * 0.52
    found: list[tuple[Region, str]] = []
    for index, (left, right) in enumerate(pairwise(_bay_edges(style.width, details.bays))):
        x, pitch = (left + right) / 2, right - left
        if details.rhythm == "paired":
            for side in (-0.21, 0.21):
                middle = x + side * pitch
                found.append(((middle - 0.13 * pitch, z, middle + 0.13 * pitch, z + tall), style.opening))
        elif details.rhythm == "alternate" and index % 2:
            found.append(((x - 0.16 * pitch, z + 0.1 * tall, x + 0.16 * pitch, z + 0.65 * tall), "rect"))
        elif details.rhythm == "oculus" and storey > 0:
            half = min(0.2 * pitch, 0.11 * style.storey)
            found.append(((x - 0.22 * pitch, z - 0.08 * tall, x + 0.22 * pitch, z + 0.58 * tall), style.opening))
            top = z + 0.76 * tall
            found.append(((x - half, top, x + half, top + 2 * half), "oculus"))
        else:
            half = 0.33 * pitch if details.rhythm == "wide" else 0.22 * pitch
            found.append(((x - half, z, x + half, z + tall), style.opening))
    return found


def _windows(canvas: Canvas, landmark: Landmark, storey: int, scale: float, blocked: list[Region]) -> None:
    style, details = landmark.style, landmark.details
    for region, shape in _openings(style, details, storey):
        spread = (region[0] - 0.3, region[1], region[2] + 0.3, region[3])
        if not any(_overlaps(spread, other) for other in blocked):
            box = _pixels(region, scale, style.width, style.height)
            shutters = details.shutters if storey > 0 and details.rhythm in ("even", "alternate") else None
            paint.window(canvas, box, shape, style.glass, style.trim, shutters)


def _columns(canvas: Canvas, style: Style, details: Details, scale: float, doors: list[Region]) -> None:
    if style.pilasters == "none":
        return
    full = style.pilasters == "column"
    half = 0.42 if full else 0.3
    for x in _bay_edges(style.width, details.bays):
        region = (float(x) - half, 0.6, float(x) + half, style.height - 0.9)
        if not any(_overlaps(region, door) for door in doors):
            paint.column(canvas, _pixels(region, scale, style.width, style.height), style.trim, full)


def _band(canvas: Canvas, z: float, details: Details, style: Style, scale: float, height: float) -> None:
    top = round((height - z - FRIEZE / 2) * scale)
    frieze(canvas, top, top + round(FRIEZE * scale), details.band, details.band_colour, style.trim)


def _trim(canvas: Canvas, style: Style, details: Details, scale: float) -> None:
    for storey in range(2, style.storeys):
        y = round((style.height - storey * style.storey) * scale)
        paint.cornice(canvas, y, max(2, round(0.22 * scale)), style.trim)
    _band(canvas, style.storey if style.storeys > 1 else style.height - 1.1, details, style, scale, style.height)
    paint.cornice(canvas, 0, max(3, round(0.5 * scale)), style.trim)


def _banners(canvas: Canvas, style: Style, details: Details, scale: float) -> None:
    assert details.banner is not None
    top = style.height - 0.9 if style.storeys > 1 else style.height * 0.74
    edges = _bay_edges(style.width, details.bays)
    half = min(0.62, 0.16 * (edges[1] - edges[0]) + 0.2)
    for x in (edges[1], edges[-2]):
        region = (x - half, top - min(4.6, style.storey), x + half, top)
        paint.banner(canvas, _pixels(region, scale, style.width, style.height), details.banner)

"""Layout of the walls of a landmark, and the painted panels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from dolglab.demo_world import paint
from dolglab.demo_world.grammar import Details, Landmark, Style
from dolglab.demo_world.paint import Panel, Region, fill_box, shade

TEXTURE_HEIGHT = 360
FRIEZE = 1.15


def front_wall(rng: np.random.Generator, landmark: Landmark) -> Panel:
    """The wall with doors, windows, frieze, balcony, banners and, if it belongs there, the emblem."""
    style, details = landmark.style, landmark.details
    wall = _plain_wall(rng, style, style.width, style.height, _texture_scale(style))
    canvas = wall.canvas
    tall = min(4.4, style.storey * 0.74)
    wide = min(2.9, max(1.7, tall * 0.62), style.width / (details.doors * 2))
    middles = {1: (0.0,), 2: (-0.25, 0.25), 3: (-0.3, 0.0, 0.3)}[details.doors]
    doors = [_around(middle * style.width, wide / 2, 0.0, tall) for middle in middles]
    if style.pilasters != "none":
        _paint_columns(wall, landmark, doors)
    emblems = []
    middle, radius = style.height - style.storey * 0.56, min(2.5, style.storey * 0.44, style.width * 0.17)
    if style.emblem_place == "middle" and details.towers != "centre":
        emblems = [_around(0.0, 1.3 * radius, middle - 1.25 * radius, middle + 1.25 * radius)]
    for storey in range(style.storeys):
        _paint_windows(wall, landmark, storey, [*(doors if storey == 0 else []), *emblems])
    _paint_trim(wall, landmark)
    for region in doors:
        paint.door(canvas, wall.box(region), details.door, details.door_colour, style.trim)
    if details.balcony is not None:
        z = details.balcony * style.storey + 0.15
        paint.balcony(canvas, wall.box(_around(0.0, style.width * 0.2, z, z + 1.0)), style.trim)
    if details.banner is not None:
        top = style.height - 0.9 if style.storeys > 1 else style.height * 0.74
        edges = _bay_edges(style.width, details.bays)
        half = min(0.62, 0.16 * (edges[1] - edges[0]) + 0.2)
        for x in (edges[1], edges[-2]):
            paint.banner(canvas, wall.box(_around(x, half, top - min(4.6, style.storey), top)), details.banner)
    if emblems:
        _paint_emblem(wall, landmark, 0.0, middle, radius)
    return wall


def side_wall(rng: np.random.Generator, landmark: Landmark) -> Panel:
    """A flank: the family's windows and the landmark's frieze, without doors or emblem."""
    style = landmark.style
    wall = _plain_wall(rng, style, style.depth, style.height, _texture_scale(style) * 0.75)
    pitch = style.width / landmark.details.bays
    edges = _bay_edges(style.depth, max(2, round(style.depth / pitch)))
    width, height = min(1.6, pitch * 0.42), style.storey * 0.5
    for storey in range(style.storeys):
        z = (storey + 0.28) * style.storey
        for x in (edges[:-1] + edges[1:]) / 2:
            box = wall.box(_around(x, width / 2, z, z + height))
            paint.window(wall.canvas, box, style.opening, style.glass, style.trim)
    _paint_trim(wall, landmark)
    return wall


def back_wall(rng: np.random.Generator, style: Style) -> Panel:
    """A wall without openings, as wide as the front."""
    return _plain_wall(rng, style, style.width, style.height, _texture_scale(style) * 0.5)


def tower_wall(rng: np.random.Generator, landmark: Landmark, centre: bool) -> Panel:
    """One wall of a tower; a tower in the centre has the door and the emblem of the front behind it."""
    style, details = landmark.style, landmark.details
    width, height = style.tower_width, style.tower_height
    wall = _plain_wall(rng, style, width, height, min(_texture_scale(style), TEXTURE_HEIGHT * 1.2 / height))
    belfry = wall.box(_around(0.0, width * 0.22, height - 3.9, height - 1.2))
    paint.window(wall.canvas, belfry, style.opening, shade(style.glass, 0.7), style.trim)
    _paint_band(wall, landmark, height - 5.4)
    if centre:
        radius = min(1.75, width * 0.33)
        _paint_emblem(wall, landmark, 0.0, height - 5.9 - radius * 1.2, radius)
        door = wall.box(_around(0.0, width * 0.22, 0.0, min(3.4, style.storey * 0.75)))
        paint.door(wall.canvas, door, details.door, details.door_colour, style.trim)
    else:
        for z in np.arange(2.2, height - 7.5, 3.6):
            slit = wall.box(_around(0.0, 0.35, z, z + 1.5))
            paint.window(wall.canvas, slit, style.opening, style.glass, style.trim)
    paint.cornice(wall.canvas, 0, max(3, round(0.4 * wall.scale)), style.trim)
    return wall


def crown_wall(rng: np.random.Generator, landmark: Landmark) -> Panel | None:
    """The gable on the front wall, in the family's shape, with the emblem if it belongs there."""
    style = landmark.style
    if style.crown == "none":
        return None
    width = style.width if style.roof == "saddle" else style.width * (0.62 if style.crown == "attic" else 0.5)
    height = crown_height(style)
    wall = masonry_wall(rng, style, width, height, _texture_scale(style))
    canvas, inner = np.zeros_like(wall.canvas), np.zeros_like(wall.canvas)
    rows, columns = canvas.shape[:2]
    outline = _crown_outline(style.crown) * (columns, rows)
    paint.fill_polygon(canvas, outline, style.trim)
    centre = np.array([columns / 2, rows])
    rim = 1 - 0.55 * wall.scale / rows
    paint.fill_polygon(inner, (outline - centre) * (rim - 0.02, rim) + centre, style.trim)
    inside = inner[..., 3] > 0
    canvas[inside] = wall.canvas[inside]
    crown = replace(wall, canvas=canvas)
    if style.emblem_place == "crown":
        radius = min(2.3, height * (0.29 if style.crown == "triangle" else 0.33))
        _paint_emblem(crown, landmark, 0.0, height * 0.4, radius)
    return crown


def crown_height(style: Style) -> float:
    """Metres from the top of the front wall to the top of its gable; 0 without one."""
    factor = {"none": 0.0, "triangle": 0.36, "stepped": 0.42, "bell": 0.42, "attic": 0.24}[style.crown]
    if style.roof == "saddle":
        return style.width * factor
    return min(6.5, max(4.2, style.width * factor * 0.62)) if factor else 0.0


def masonry_wall(rng: np.random.Generator, style: Style, width: float, height: float, scale: float) -> Panel:
    """A plain wall of a family's material; sizes in metres and pixels per metre."""
    size = round(width * scale), round(height * scale)
    return Panel(paint.masonry(rng, size, scale, style.material, style.wall, style.trim), width, height, scale)


def _texture_scale(style: Style) -> float:
    """Pixels per metre for the walls of a family."""
    return min(22.0, TEXTURE_HEIGHT / style.height)


def _around(x: float, half: float, low: float, high: float) -> Region:
    return x - half, low, x + half, high


def _overlaps(one: Region, other: Region) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _bay_edges(width: float, bays: int) -> np.ndarray:
    edge = min(0.9, width * 0.06)
    return np.linspace(edge - width / 2, width / 2 - edge, bays + 1)


def _crown_outline(shape: str) -> np.ndarray:
    """(n, 2) outline of a gable in the unit square, y down."""
    if shape == "triangle":
        return np.array([[0, 1], [0.5, 0], [1, 1]], float)
    if shape == "attic":
        return np.array([[0.04, 1], [0.04, 0.16], [0.0, 0.16], [0.0, 0], [1, 0], [1, 0.16], [0.96, 0.16], [0.96, 1]])
    if shape == "stepped":
        across, down = [0, 0, 0.13, 0.13, 0.26, 0.26, 0.39, 0.39], [1, 0.74, 0.74, 0.5, 0.5, 0.25, 0.25, 0]
        left = np.column_stack([across, down])
    else:
        t = np.linspace(0, 1, 14)
        left = np.column_stack([0.5 * t**0.8, 0.5 + 0.5 * np.cos(np.pi * t**0.85)])
    return np.vstack([left, (left * (-1, 1) + (1, 0))[::-1]])


def _windows(style: Style, details: Details, storey: int) -> Iterator[tuple[Region, str]]:
    """Windows of one storey as (region, shape), in the landmark's rhythm."""
    z, tall = (storey + 0.27) * style.storey, style.storey * 0.52
    for index, (left, right) in enumerate(pairwise(_bay_edges(style.width, details.bays))):
        x, pitch = (left + right) / 2, right - left
        if details.rhythm == "paired":
            for side in (-0.21, 0.21):
                yield _around(x + side * pitch, 0.13 * pitch, z, z + tall), style.opening
        elif details.rhythm == "alternate" and index % 2:
            yield _around(x, 0.16 * pitch, z + 0.1 * tall, z + 0.65 * tall), "rect"
        elif details.rhythm == "oculus" and storey > 0:
            half, top = min(0.2 * pitch, 0.11 * style.storey), z + 0.76 * tall
            yield _around(x, 0.22 * pitch, z - 0.08 * tall, z + 0.58 * tall), style.opening
            yield _around(x, half, top, top + 2 * half), "oculus"
        else:
            yield _around(x, (0.33 if details.rhythm == "wide" else 0.22) * pitch, z, z + tall), style.opening


def _plain_wall(rng: np.random.Generator, style: Style, width: float, height: float, scale: float) -> Panel:
    """Masonry with a plinth and, if the family has them, quoins."""
    wall = masonry_wall(rng, style, width, height, scale)
    rows, columns = wall.canvas.shape[:2]
    top = rows - round(0.7 * scale)
    fill_box(wall.canvas, (0, top, columns, rows), shade(style.wall, 0.62))
    fill_box(wall.canvas, (0, top, columns, top + 3), shade(style.trim, 0.9))
    if style.quoins:
        paint.quoins(wall.canvas, scale, style.trim)
    return wall


def _paint_windows(wall: Panel, landmark: Landmark, storey: int, blocked: list[Region]) -> None:
    style, details = landmark.style, landmark.details
    shutters = details.shutters if storey > 0 and details.rhythm in ("even", "alternate") else None
    for region, shape in _windows(style, details, storey):
        spread = (region[0] - 0.3, region[1], region[2] + 0.3, region[3])
        if not any(_overlaps(spread, other) for other in blocked):
            paint.window(wall.canvas, wall.box(region), shape, style.glass, style.trim, shutters)


def _paint_columns(wall: Panel, landmark: Landmark, doors: list[Region]) -> None:
    style = landmark.style
    full = style.pilasters == "column"
    for x in _bay_edges(style.width, landmark.details.bays):
        region = _around(x, 0.42 if full else 0.3, 0.6, style.height - 0.9)
        if not any(_overlaps(region, door) for door in doors):
            paint.column(wall.canvas, wall.box(region), style.trim, full)


def _paint_trim(wall: Panel, landmark: Landmark) -> None:
    """Cornices between storeys and at the top, and the frieze."""
    style = landmark.style
    for storey in range(2, style.storeys):
        y = round((style.height - storey * style.storey) * wall.scale)
        paint.cornice(wall.canvas, y, max(2, round(0.22 * wall.scale)), style.trim)
    _paint_band(wall, landmark, style.storey if style.storeys > 1 else style.height - 1.1)
    paint.cornice(wall.canvas, 0, max(3, round(0.5 * wall.scale)), style.trim)


def _paint_band(wall: Panel, landmark: Landmark, z: float) -> None:
    details = landmark.details
    top = round((wall.height - z - FRIEZE / 2) * wall.scale)
    bottom = top + round(FRIEZE * wall.scale)
    paint.frieze(wall.canvas, top, bottom, details.band, details.band_colour, landmark.style.trim)


def _paint_emblem(wall: Panel, landmark: Landmark, x: float, z: float, radius: float) -> None:
    details = landmark.details
    centre = (x + wall.width / 2) * wall.scale, (wall.height - z) * wall.scale
    paint.emblem(wall.canvas, centre, radius * wall.scale, details.emblem, *details.emblem_colours, landmark.style.trim)

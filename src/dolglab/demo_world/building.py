"""A landmark in space: boxes with painted walls, roofs, towers and domes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dolglab.demo_world import paint
from dolglab.demo_world.camera import Camera, Plane, Point, billboard
from dolglab.demo_world.facade import (
    back_wall,
    crown_height,
    crown_wall,
    front_wall,
    masonry_wall,
    side_wall,
    tower_wall,
)
from dolglab.demo_world.grammar import RGB, Landmark, Style
from dolglab.demo_world.paint import Canvas, Panel, shade

ROOF_SCALE = 12.0


@dataclass(frozen=True)
class Surface:
    """A painted plane. `front` marks the walls that a query shows; `lit` is False if its light is painted."""

    plane: Plane
    texture: Canvas
    front: bool = False
    lit: bool = True


@dataclass(frozen=True)
class Sprite:
    """A painted figure that always faces the camera, centred on `foot`; in metres."""

    foot: Point
    width: float
    height: float
    texture: Canvas

    def surface(self, camera: Camera) -> Surface:
        """The sprite as a surface that faces this camera."""
        return Surface(billboard(camera, self.foot, self.width, self.height), self.texture, lit=False)


@dataclass(frozen=True)
class Volume:
    """A convex part of a building with its bounding box; its surfaces do not occlude one another."""

    low: Point
    high: Point
    surfaces: tuple[Surface, ...]
    sprites: tuple[Sprite, ...] = ()


@dataclass(frozen=True)
class Building:
    """All parts of a landmark, and the height of its highest point in metres."""

    volumes: tuple[Volume, ...]
    width: float
    depth: float
    height: float
    top: float

    @property
    def centre(self) -> Point:
        """The middle of the front wall, at which photographers aim."""
        return 0.0, 0.0, self.height / 2

    @property
    def surfaces(self) -> list[Surface]:
        """The painted planes of all parts."""
        return [surface for volume in self.volumes for surface in volume.surfaces]


def build(rng: np.random.Generator, landmark: Landmark) -> Building:
    """Paint every face of the landmark once, and place it in space."""
    style = landmark.style
    volumes = [_body(rng, landmark), *_crown(rng, landmark), *_towers(rng, landmark)]
    if style.roof == "dome":
        volumes.append(_dome_on_drum(rng, style))
    top = max(volume.high[2] for volume in volumes)
    spread = max(max(abs(volume.low[0]), volume.high[0]) for volume in volumes) * 2
    return Building(tuple(volumes), spread, style.depth, style.height, top)


def far_to_near(volumes: tuple[Volume, ...], camera: Camera) -> list[Volume]:
    """Disjoint boxes in painting order, far to near."""
    remaining, order = list(volumes), []
    while remaining:
        hidden = [any(_may_hide(one, other, camera) for other in remaining if other is not one) for one in remaining]
        chosen = remaining[hidden.index(False) if False in hidden else 0]
        remaining.remove(chosen)
        order.append(chosen)
    return order


def _may_hide(one: Volume, other: Volume, camera: Camera) -> bool:
    """False if a plane between the boxes has the camera on the side of `other`."""
    for axis, eye in enumerate(camera.position):
        if one.low[axis] >= other.high[axis] - 1e-6 and eye <= one.low[axis]:
            return False
        if one.high[axis] <= other.low[axis] + 1e-6 and eye >= one.high[axis]:
            return False
    return True


def _box_walls(low: Point, high: Point, front: Panel, side: Panel, back: Panel) -> list[Surface]:
    (x0, y0, z0), (x1, y1, z1) = low, high
    down = (0.0, 0.0, z0 - z1)
    return [
        Surface(Plane((x0, y0, z1), (x1 - x0, 0.0, 0.0), down), front.canvas, front=True),
        Surface(Plane((x1, y0, z1), (0.0, y1 - y0, 0.0), down), side.canvas),
        Surface(Plane((x1, y1, z1), (x0 - x1, 0.0, 0.0), down), back.canvas),
        Surface(Plane((x0, y1, z1), (0.0, y0 - y1, 0.0), down), side.canvas),
    ]


def _pyramid(low: Point, high: Point, inset: float, tiles: Canvas) -> list[Surface]:
    """Four slopes above a rectangle, with the ridge `inset` metres from the flanks."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    width, half, rise = x1 - x0, (y1 - y0) / 2, z1 - z0
    part = inset / width
    broad = _cut(tiles, [(part, 0), (1 - part, 0), (1, 1), (0, 1)])
    sharp = _cut(tiles, [(0.5, 0), (1, 1), (0, 1)])
    return [
        Surface(Plane((x0, y0 + half, z1), (width, 0.0, 0.0), (0.0, -half, -rise)), broad),
        Surface(Plane((x1 - inset, y0, z1), (0.0, 2 * half, 0.0), (inset, 0.0, -rise)), sharp),
        Surface(Plane((x1, y0 + half, z1), (-width, 0.0, 0.0), (0.0, half, -rise)), broad),
        Surface(Plane((x0 + inset, y1, z1), (0.0, -2 * half, 0.0), (-inset, 0.0, -rise)), sharp),
    ]


def _parapet(low: Point, high: Point, style: Style, battlement: bool) -> list[Surface]:
    """Battlements or a balustrade along the upper edges of a box."""
    (x0, y0, _), (x1, y1, z1) = low, high
    height = 1.3 if battlement else 1.0
    surfaces = []
    for origin, along in (
        ((x1, y1, z1 + height), (x0 - x1, 0.0, 0.0)),
        ((x0, y1, z1 + height), (0.0, y0 - y1, 0.0)),
        ((x1, y0, z1 + height), (0.0, y1 - y0, 0.0)),
        ((x0, y0, z1 + height), (x1 - x0, 0.0, 0.0)),
    ):
        length = float(np.abs(along).sum())
        canvas = paint.blank(length, height, 20).canvas
        rows, columns = canvas.shape[:2]
        if battlement:
            paint.fill_box(canvas, (0, rows // 2, columns, rows), style.wall)
            edges = np.linspace(0, columns, 2 * max(2, round(length / 1.7)) + 2).round().astype(int)
            for left, right in zip(edges[::2], edges[1::2], strict=True):
                paint.fill_box(canvas, (left, 0, right, rows), style.wall)
                paint.fill_box(canvas, (left, 0, right, 4), style.trim)
        else:
            for x in range(0, columns, 12):
                paint.fill_box(canvas, (x, 0, x + 6, rows), shade(style.trim, 0.92))
            paint.fill_box(canvas, (0, 0, columns, 5), style.trim)
            paint.fill_box(canvas, (0, rows - 4, columns, rows), shade(style.trim, 0.8))
        surfaces.append(Surface(Plane(origin, along, (0.0, 0.0, -height)), canvas))
    return surfaces


def _tiles(rng: np.random.Generator, width: float, height: float, colour: RGB) -> Canvas:
    size = max(8, round(width * ROOF_SCALE)), max(8, round(height * ROOF_SCALE))
    return paint.masonry(rng, size, ROOF_SCALE, "brick", colour, colour)


def _cut(texture: Canvas, outline: list[tuple[float, float]]) -> Canvas:
    """The texture inside an outline given in the unit square."""
    height, width = texture.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(np.array(outline) * (width, height)).astype(np.int32)], 255)
    cut = texture.copy()
    cut[..., 3] = np.minimum(cut[..., 3], mask)
    return cut


def _body(rng: np.random.Generator, landmark: Landmark) -> Volume:
    style = landmark.style
    half, height = style.width / 2, style.height
    low, high = (-half, 0.0, 0.0), (half, style.depth, height)
    surfaces = _box_walls(low, high, front_wall(rng, landmark), side_wall(rng, landmark), back_wall(rng, style))
    rise = crown_height(style) * 0.92 if style.roof == "saddle" else 0.0
    if style.roof == "saddle":
        tiles = _tiles(rng, style.depth, float(np.hypot(half, rise)), style.roof_colour)
        ridge = height + rise
        slope = (0.0, style.depth, 0.0)
        surfaces.append(Surface(Plane((0.0, 0.0, ridge), slope, (half + 0.4, 0.0, -rise - 0.2)), tiles))
        back = (0.0, -style.depth, 0.0)
        surfaces.append(Surface(Plane((0.0, style.depth, ridge), back, (-half - 0.4, 0.0, -rise - 0.2)), tiles))
        gable = _cut(back_wall(rng, style).canvas, [(0, 1), (0.5, 0), (1, 1)])
        surfaces.append(Surface(Plane((half, style.depth, ridge), (-style.width, 0.0, 0.0), (0.0, 0.0, -rise)), gable))
    elif style.roof in ("hip", "spire"):
        inset = half if style.roof == "spire" else min(half, style.depth / 2) * 0.9
        rise = style.width * 1.25 if style.roof == "spire" else min(6.0, style.depth * 0.36)
        tiles = _tiles(rng, style.width, float(np.hypot(style.depth / 2, rise)), style.roof_colour)
        eaves = 0.5
        base, peak = (-half - eaves, -eaves, height), (half + eaves, style.depth + eaves, height + rise)
        surfaces.extend(_pyramid(base, peak, inset + eaves, tiles))
    else:
        surfaces.extend(_parapet(low, high, style, style.roof == "battlement"))
    sprites = ()
    if style.kind == "campanile" and style.roof == "dome":
        sprites = (_dome(style, (0.0, style.depth / 2, height), style.width * 0.92),)
        rise = sprites[0].height
    return Volume(low, (half, style.depth, height + rise), tuple(surfaces), sprites)


def _crown(rng: np.random.Generator, landmark: Landmark) -> list[Volume]:
    """The gable of the front as a separate volume, since it is in front of the roof and of a dome."""
    crown = crown_wall(rng, landmark)
    if crown is None:
        return []
    half, height = crown.width / 2, landmark.style.height
    plane = Plane((-half, 0.0, height + crown.height), (crown.width, 0.0, 0.0), (0.0, 0.0, -crown.height))
    low, high = (-half, 0.0, height), (half, 0.0, height + crown.height)
    return [Volume(low, high, (Surface(plane, crown.canvas),))]


def _towers(rng: np.random.Generator, landmark: Landmark) -> list[Volume]:
    style, layout = landmark.style, landmark.details.towers
    if layout == "none":
        return []
    size, half = style.tower_width, style.width / 2
    starts = {
        "left": ((-half - size, -0.6),),
        "right": ((half, -0.6),),
        "pair": ((-half - size, -0.6), (half, -0.6)),
        "centre": ((-size / 2, -size),),
    }[layout]
    front = tower_wall(rng, landmark, layout == "centre")
    side = tower_wall(rng, landmark, False)
    return [_tower(rng, style, (x, y, 0.0), front, side) for x, y in starts]


def _tower(rng: np.random.Generator, style: Style, low: Point, front: Panel, side: Panel) -> Volume:
    size, height = style.tower_width, style.tower_height
    high = (low[0] + size, low[1] + size, height)
    surfaces = _box_walls(low, high, front, side, side)
    sprites: tuple[Sprite, ...] = ()
    rise = 1.3
    if style.cap == "battlement":
        surfaces.extend(_parapet(low, high, style, True))
    elif style.cap == "dome":
        sprites = (_dome(style, (low[0] + size / 2, low[1] + size / 2, height), size * 1.02),)
        rise = sprites[0].height
    else:
        rise = size * (2.0 if style.cap == "spire" else 0.85)
        base = (low[0] - 0.3, low[1] - 0.3, height)
        tiles = _tiles(rng, size, rise, style.roof_colour)
        surfaces.extend(_pyramid(base, (high[0] + 0.3, high[1] + 0.3, height + rise), size / 2 + 0.3, tiles))
    return Volume(low, (high[0], high[1], height + rise), tuple(surfaces), sprites)


def _dome_on_drum(rng: np.random.Generator, style: Style) -> Volume:
    size = min(style.width, style.depth) * 0.52
    x, y, z = -size / 2, style.depth / 2 - size / 2, style.height
    drum_height = size * 0.28
    drum = masonry_wall(rng, style, size, drum_height, 16)
    for index in range(5):
        left = round((index + 0.28) * size * 16 / 5)
        box = (left, round(drum_height * 5), left + round(size * 1.4), round(drum_height * 14))
        paint.window(drum.canvas, box, style.opening, style.glass, style.trim)
    low, high = (x, y, z), (x + size, y + size, z + drum_height)
    walls = [replace(surface, front=False) for surface in _box_walls(low, high, drum, drum, drum)]
    dome = _dome(style, (0.0, style.depth / 2, z + drum_height), size * 1.08)
    return Volume(low, (x + size, y + size, z + drum_height + dome.height), tuple(walls), (dome,))


def _dome(style: Style, foot: Point, width: float) -> Sprite:
    """A ribbed dome with a lantern, with light painted from the left."""
    columns, rows = 200, 170
    canvas = np.zeros((rows, columns, 4), np.uint8)
    y, x = np.mgrid[0:rows, 0:columns]
    across, up = (x - columns / 2) / (columns / 2), (rows - y) / 128
    half = np.sqrt(np.clip(1 - up**2.3, 0, 1))
    inside = np.abs(across) <= half
    turn = across / np.maximum(half, 1e-3)
    light = 0.66 + 0.42 * np.cos(np.clip(turn + 0.35, -1.6, 1.6)) - 0.12 * turn
    ribs = np.abs((np.arcsin(np.clip(turn, -1, 1)) / np.pi * 9) % 1 - 0.5) < 0.07
    tone = np.asarray(style.roof_colour) * (light * np.where(ribs, 1.2, 0.92))[..., None]
    canvas[inside, :3] = tone.clip(0, 255)[inside]
    canvas[inside, 3] = 255
    paint.fill_box(canvas, (88, 26, 112, 46), shade(style.trim, 0.95))
    paint.fill_polygon(canvas, [(84, 27), (100, 4), (116, 27)], shade(style.roof_colour, 0.8))
    paint.fill_box(canvas, (99, 0, 102, 8), (220, 180, 70))
    return Sprite(foot, width, width * rows / columns, canvas)

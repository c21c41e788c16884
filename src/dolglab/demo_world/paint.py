"""Painting of the parts of a building with OpenCV: masonry, openings, doors, columns, cloth, ornaments.

Canvases are (height, width, 4) uint8, RGB and coverage: 0 is air, 255 is solid, `GLASS` is solid and lit
at night. Boxes are (left, top, right, bottom) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dolglab.demo_world.grammar import RGB

Canvas = NDArray[np.uint8]
Box = tuple[int, int, int, int]
# Left, lower, right and upper edge in metres: x from the middle of a wall, z from the ground.
Region = tuple[float, float, float, float]
Points = NDArray[Any] | Sequence[Any]
GLASS = 160


@dataclass(frozen=True)
class Panel:
    """A canvas, its extent in metres, and its pixels per metre."""

    canvas: Canvas
    width: float
    height: float
    scale: float

    def box(self, region: Region) -> Box:
        """A region in pixels."""
        left, right = ((x + self.width / 2) * self.scale for x in (region[0], region[2]))
        top, bottom = ((self.height - z) * self.scale for z in (region[3], region[1]))
        return round(left), round(top), round(right), round(bottom)


def blank(width: float, height: float, scale: float) -> Panel:
    """A panel of air."""
    return Panel(np.zeros((round(height * scale), round(width * scale), 4), np.uint8), width, height, scale)


def shade(colour: RGB, factor: float) -> RGB:
    """The colour made darker (factor < 1) or lighter (factor > 1)."""
    r, g, b = (min(255, int(channel * factor)) for channel in colour)
    return r, g, b


def fill_box(canvas: Canvas, box: Box, colour: RGB, alpha: int = 255) -> None:
    """Fill a box; a box without area is ignored."""
    left, top, right, bottom = box
    canvas[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = (*colour, alpha)


def fill_polygon(canvas: Canvas, points: Points, colour: RGB, alpha: int = 255) -> None:
    """Fill a polygon (n, 2) given in pixels."""
    cv2.fillPoly(canvas, [np.round(np.asarray(points)).astype(np.int32)], (*colour, alpha), cv2.LINE_8)


def fill_circle(canvas: Canvas, centre: Points, radius: float, colour: RGB, alpha: int = 255) -> None:
    """Fill a circle given in pixels."""
    cv2.circle(canvas, (round(centre[0]), round(centre[1])), max(1, round(radius)), (*colour, alpha), -1)


def masonry(
    rng: np.random.Generator, size: tuple[int, int], scale: float, material: str, colour: RGB, trim: RGB
) -> Canvas:
    """A wall of (width, height) pixels at `scale` pixels per metre."""
    width, height = size
    coarse = rng.standard_normal((height // 40 + 2, width // 40 + 2), np.float32) * 4
    fine = rng.standard_normal((height // 3 + 1, width // 3 + 1), np.float32) * 3
    smooth = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    tone = np.asarray(smooth + cv2.resize(fine, size, interpolation=cv2.INTER_LINEAR), np.float32)
    base = np.empty((height, width, 3), np.float32)
    base[:] = colour
    rows = np.arange(height)
    if material == "stripes":
        base[(rows // max(2, round(0.8 * scale))) % 2 == 1] = np.asarray(trim) * 0.8
    if material in ("brick", "ashlar", "rubble", "stripes"):
        course, length, spread = {"brick": (0.34, 0.8, 15), "rubble": (0.75, 1.1, 17)}.get(material, (0.8, 1.5, 8))
        tone += _courses(rng, width, height, course * scale, length * scale, spread)
    canvas = np.empty((height, width, 4), np.uint8)
    canvas[..., :3] = np.clip(base + tone[..., None], 0, 255)
    canvas[..., 3] = 255
    if material == "timber":
        _beams(canvas, scale, shade((92, 62, 44), 0.9))
    return canvas


def _courses(
    rng: np.random.Generator, width: int, height: int, course: float, length: float, spread: float
) -> NDArray[np.float32]:
    y, x = np.arange(height), np.arange(width)
    row = (y / course).astype(int)
    shifted = x[None, :] + (row % 2)[:, None] * (length / 2)
    column = (shifted / length).astype(int)
    blocks = rng.normal(0, spread, (row[-1] + 1, column.max() + 1)).astype(np.float32)
    tone = blocks[row[:, None], column]
    tone[(y % course) < 2] = -24
    tone[(shifted % length) < 2] = -24
    return tone


def _beams(canvas: Canvas, scale: float, colour: RGB) -> None:
    height, width = canvas.shape[:2]
    thick = max(2, round(0.28 * scale))
    step, rise = 2.3 * scale, 2.0 * scale
    for x in (round(index * step) for index in range(int(width / step) + 2)):
        cv2.line(canvas, (x, 0), (x, height), (*colour, 255), thick)
    for y in (round(index * rise) for index in range(int(height / rise) + 2)):
        cv2.line(canvas, (0, y), (width, y), (*colour, 255), thick)
    for row in range(int(height / rise) + 1):
        for column in range(row % 2, int(width / step) + 1, 2):
            start = (round(column * step), round(row * rise))
            end = (round((column + 1) * step), round((row + 1) * rise))
            cv2.line(canvas, start, end, (*colour, 255), max(2, thick // 2))


def outline(shape: str, box: Box) -> NDArray[np.float64]:
    """(n, 2) outline of an opening: `rect`, `segment`, `round`, `pointed` or `oculus`."""
    left, top, right, bottom = box
    width, middle = right - left, (left + right) / 2
    if shape == "oculus":
        angles = np.linspace(0, 2 * np.pi, 25)[:-1]
        radius = min(width, bottom - top) / 2
        return np.column_stack([middle + radius * np.cos(angles), (top + bottom) / 2 + radius * np.sin(angles)])
    rise = {"rect": 0.0, "segment": 0.16, "round": 0.5, "pointed": 0.9}[shape] * width
    t = np.linspace(-1, 1, 21)
    if shape == "pointed":
        curve = 1 - np.abs(t) ** 1.7
    else:
        curve = np.sqrt(np.clip(1 - t**2, 0, 1)) if rise else np.zeros_like(t)
    arch = np.column_stack([middle + t * width / 2, top + rise - curve * rise])
    return np.vstack([[left, bottom], arch, [right, bottom]])


def _grown(box: Box, by: float) -> Box:
    return round(box[0] - by), round(box[1] - by), round(box[2] + by), round(box[3] + by)


def window(canvas: Canvas, box: Box, shape: str, glass: RGB, trim: RGB, shutters: RGB | None = None) -> None:
    """A window with surround, sill, glazing bars and, if a colour is given, open shutters."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if shutters is not None and shape in ("rect", "segment"):
        leaf = round(width * 0.46)
        for start in (left - leaf - 2, right + 2):
            fill_box(canvas, (start, top, start + leaf, bottom), shutters)
            for y in range(top + 4, bottom - 3, 6):
                fill_box(canvas, (start + 2, y, start + leaf - 2, y + 2), shade(shutters, 0.7))
    rim = max(3, round(width * 0.13))
    fill_polygon(canvas, outline(shape, _grown(box, rim)), trim)
    fill_polygon(canvas, outline(shape, box), shade(glass, 0.55), GLASS)
    inner = (left + max(1, rim // 3), top + max(2, rim // 2), right, bottom)
    fill_polygon(canvas, outline(shape, inner), glass, GLASS)
    lower = (left + width // 5, top + height // 2, left + width // 2, bottom - height // 8)
    if shape != "oculus":
        fill_box(canvas, lower, shade(glass, 1.35), GLASS)
    bar = max(1, round(width * 0.07))
    middle = (left + right) // 2
    fill_box(canvas, (middle - bar // 2 - 1, top, middle + bar // 2 + 1, bottom), shade(trim, 0.9))
    for part in (0.42,) if shape == "oculus" else (0.36, 0.68):
        y = top + round(height * part)
        fill_box(canvas, (left, y, right, y + bar + 1), shade(trim, 0.9))
    if shape != "oculus":
        fill_box(canvas, (left - rim - 2, bottom, right + rim + 2, bottom + rim), shade(trim, 1.08))
        fill_box(canvas, (left - rim, bottom + rim, right + rim, bottom + rim + 2), shade(trim, 0.45))


def door(canvas: Canvas, box: Box, shape: str, colour: RGB, trim: RGB) -> None:
    """A door of two leaves in a stepped surround, with a stair in front of it."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    for step, tone in ((0.26, 0.78), (0.17, 1.06), (0.08, 0.7)):
        grown = _grown(box, step * width)
        fill_polygon(canvas, outline(shape, (grown[0], grown[1], grown[2], bottom)), shade(trim, tone))
    fill_polygon(canvas, outline(shape, box), colour)
    middle = (left + right) // 2
    panel = shade(colour, 0.66)
    for start, end in ((left, middle), (middle, right)):
        for upper, lower in ((0.42, 0.66), (0.72, 0.94)):
            pad = max(2, width // 12)
            rows = top + round(height * upper), top + round(height * lower)
            fill_box(canvas, (start + pad, rows[0], end - pad, rows[1]), panel)
    fill_box(canvas, (middle - 1, top + height // 8, middle + 1, bottom), shade(colour, 0.4))
    fill_box(canvas, (left, top + round(height * 0.34), right, top + round(height * 0.38)), shade(trim, 0.9))
    stair = max(2, round(height * 0.035))
    for index in range(2):
        reach = round(width * (0.22 + 0.14 * index))
        y = bottom - 2 * stair + index * stair
        fill_box(canvas, (left - reach, y, right + reach, y + stair), shade(trim, 0.95 - 0.16 * index))


def column(canvas: Canvas, box: Box, colour: RGB, full: bool) -> None:
    """A pilaster, or with `full` a round column, with base and capital."""
    left, top, right, bottom = box
    width = right - left
    if full:
        across = np.cos(np.linspace(-1.3, 1.0, max(1, width)))
        canvas[top:bottom, left:right, :3] = (np.asarray(colour) * (0.5 + 0.6 * across[:, None])).clip(0, 255)
        canvas[top:bottom, left:right, 3] = 255
    else:
        fill_box(canvas, box, colour)
    dark = max(1, width // 6)
    fill_box(canvas, (right, top, right + dark, bottom), shade(colour, 0.5))
    block = round(width * 0.5)
    for y in (top, bottom - block):
        fill_box(canvas, (left - block // 2, y, right + block // 2, y + block), shade(colour, 1.06))
    fill_box(canvas, (left - block // 2, top + block, right + block // 2, top + block + 2), shade(colour, 0.55))


def quoins(canvas: Canvas, scale: float, colour: RGB) -> None:
    """Alternating long and short blocks along both edges of a wall."""
    height, width = canvas.shape[:2]
    course = max(3, round(0.62 * scale))
    for index, y in enumerate(range(0, height, course)):
        reach = round((0.95 if index % 2 else 0.6) * scale)
        tone = shade(colour, 1.0 if index % 2 else 0.92)
        fill_box(canvas, (0, y, reach, y + course - 2), tone)
        fill_box(canvas, (width - reach, y, width, y + course - 2), tone)


def cornice(canvas: Canvas, y: int, thickness: int, colour: RGB) -> None:
    """A moulding across the whole wall with its upper edge at row `y` and its shadow."""
    width = canvas.shape[1]
    fill_box(canvas, (0, y, width, y + thickness), shade(colour, 1.05))
    fill_box(canvas, (0, y + thickness * 2 // 3, width, y + thickness), shade(colour, 0.8))
    below = canvas[y + thickness : y + 2 * thickness, :, :3]
    below[:] = (below * 0.68).astype(np.uint8)


def banner(canvas: Canvas, box: Box, colour: RGB) -> None:
    """A hanging cloth with a swallow tail and a pale stripe."""
    left, top, right, bottom = box
    middle, notch = (left + right) / 2, (right - left) * 0.5
    fill_polygon(canvas, [[left, top], [right, top], [right, bottom], [middle, bottom - notch], [left, bottom]], colour)
    stripe = max(1, (right - left) // 5)
    start = int(middle) - stripe // 2
    pale = (240, 226, 180) if sum(colour) < 560 else (120, 30, 34)
    fill_box(canvas, (start, top, start + stripe, round(bottom - notch)), pale)
    fill_box(canvas, (left - 2, top - 2, right + 2, top + 2), (70, 54, 40))


def balcony(canvas: Canvas, box: Box, trim: RGB) -> None:
    """A stone balcony: balusters between a rail and a slab, with its shadow."""
    left, top, right, bottom = box
    rail = max(2, (bottom - top) // 6)
    fill_box(canvas, (left, top, right, bottom), shade(trim, 0.5))
    step = max(4, (bottom - top) // 2)
    for x in range(left, right, step):
        fill_box(canvas, (x, top, min(x + step // 2, right), bottom), shade(trim, 0.96))
    fill_box(canvas, (left - 2, top, right + 2, top + rail), trim)
    fill_box(canvas, (left - 3, bottom - rail, right + 3, bottom + rail), shade(trim, 1.05))
    fill_box(canvas, (left + 2, bottom + rail, right + 4, bottom + 3 * rail), shade(trim, 0.42))


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
    for factor, tone in ((1.18, shade(trim, 0.6)), (1.12, trim), (0.96, ground)):
        fill_circle(canvas, centre, radius * factor, tone)
    _paint_figure(canvas, np.asarray(centre, float), radius * 0.86, kind, colour, ground)


def _paint_figure(
    canvas: Canvas, centre: np.ndarray, radius: float, kind: tuple[str, int], colour: RGB, ground: RGB
) -> None:
    name, parts = kind
    x, y = centre.round().astype(int).tolist()
    ink, thick = (*colour, 255), max(2, round(radius * 0.16))

    def spokes(share: float, count: int = parts, offset: float = 0.0) -> np.ndarray:
        """(count, 2) points on a circle of a share of the radius, the first one at the top."""
        angles = np.arange(count) * 2 * np.pi / count - np.pi / 2 + offset
        return centre + radius * share * np.column_stack([np.cos(angles), np.sin(angles)])

    match name:
        case "rose":
            for spot in spokes(0.66):
                fill_circle(canvas, spot, radius * min(0.34, 1.75 / parts), colour)
            fill_circle(canvas, centre, radius * 0.3, colour)
            fill_circle(canvas, centre, radius * 0.14, ground)
        case "star":
            dents = spokes(0.42 if parts < 7 else 0.55, offset=np.pi / parts)
            fill_polygon(canvas, np.stack([spokes(1.0), dents], axis=1).reshape(-1, 2), colour)
        case "clock":
            fill_circle(canvas, centre, radius, (246, 240, 222))
            for spot in spokes(0.8, 12):
                fill_circle(canvas, spot, radius * 0.09, ground if sum(ground) < 600 else (40, 36, 40))
            for length, angle in ((0.55, -0.9), (0.75, 1.2)):
                tip = centre + radius * length * np.array([np.cos(angle), np.sin(angle)])
                cv2.line(canvas, (x, y), tip.round().astype(int).tolist(), (30, 28, 34, 255), thick)
        case "shield":
            half = np.array([[0, -0.75], [0.68, -0.75], [0.66, 0.1], [0.4, 0.6], [0, 0.95]]) * radius
            fill_polygon(canvas, centre + half, colour)
            fill_polygon(canvas, centre + half * (-1, 1), (244, 238, 222) if sum(colour) < 600 else shade(ground, 1.6))
            fill_box(canvas, (x - round(0.66 * radius), y - round(0.28 * radius), x + round(0.66 * radius), y), ground)
        case "cross":
            arm, broad = round(radius * 0.88), max(2, round(radius * 0.24))
            fill_box(canvas, (x - broad, y - arm, x + broad, y + arm), colour)
            fill_box(canvas, (x - arm, y - broad, x + arm, y + broad), colour)
        case "sun":
            base = spokes(0.5, offset=np.pi / parts)
            for index, tip in enumerate(spokes(1.0)):
                fill_polygon(canvas, [base[index - 1], tip, base[index]], colour)
            fill_circle(canvas, centre, radius * 0.46, colour)
        case "crescent":
            fill_circle(canvas, (centre[0] - 0.06 * radius, centre[1]), radius * 0.86, colour)
            fill_circle(canvas, (centre[0] + 0.34 * radius, centre[1] - 0.08 * radius), radius * 0.68, ground)
        case "lozenge":
            for share, tone in ((0.96, colour), (0.6, ground), (0.34, colour)):
                fill_polygon(canvas, spokes(share, 4), tone)
        case "foil":
            for spot in spokes(0.46):
                fill_circle(canvas, spot, radius * 0.46, colour)
        case "wheel":
            cv2.circle(canvas, (x, y), round(radius * 0.82), ink, thick)
            for tip in spokes(0.8):
                cv2.line(canvas, (x, y), tip.round().astype(int).tolist(), ink, thick)
            fill_circle(canvas, centre, radius * 0.24, colour)
        case "crown":
            points = [[-0.8, 0.55], [-0.8, -0.5], [-0.4, -0.05], [0, -0.72], [0.4, -0.05], [0.8, -0.5], [0.8, 0.55]]
            fill_polygon(canvas, centre + np.array(points) * radius, colour)


def frieze(canvas: Canvas, top: int, bottom: int, kind: str, colour: RGB, trim: RGB) -> None:
    """A band of ornament across the whole wall between two rows, with a centred pattern."""
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

"""Ornaments that tell siblings apart: emblems in medallions, and friezes."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from dolglab.demo_world.grammar import RGB
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
    fill_circle(canvas, centre, radius * 0.3, colour)
    fill_circle(canvas, centre, radius * 0.14, ground)


def _star(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    tips = _spokes(centre, radius, parts)
    dents = _spokes(centre, radius * (0.42 if parts < 7 else 0.55), parts, np.pi / parts)
    fill_polygon(canvas, np.stack([tips, dents], axis=1).reshape(-1, 2), colour)


def _clock(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    fill_circle(canvas, centre, radius, (246, 240, 222))
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
    fill_circle(canvas, centre, radius * 0.46, colour)


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
    fill_circle(canvas, centre, radius * 0.24, colour)


def _crown(canvas: Canvas, centre: np.ndarray, radius: float, parts: int, colour: RGB, ground: RGB) -> None:
    points = [[-0.8, 0.55], [-0.8, -0.5], [-0.4, -0.05], [0, -0.72], [0.4, -0.05], [0.8, -0.5], [0.8, 0.55]]
    fill_polygon(canvas, centre + np.array(points) * radius, colour)


_FIGURES = {
    figure.__name__.removeprefix("_"): figure
    for figure in (_rose, _star, _clock, _shield, _cross, _sun, _crescent, _lozenge, _foil, _wheel, _crown)
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

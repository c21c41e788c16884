"""One picture: planes and figures composed from far to near, and how much is seen of the landmark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from dolglab.demo_world.building import Building, Sprite, Surface, far_to_near
from dolglab.demo_world.camera import Array, Camera, faces_camera, homography, project, visible_share
from dolglab.demo_world.paint import GLASS, Box
from dolglab.demo_world.photo import Lens, Picture, Weather, backdrop, expose, face_light

OTHER, LANDMARK, FRONT = 0, 1, 2
# Metres before the camera within which nothing is drawn.
NEAREST = 0.8
# Sizes at which pictures are drawn and what they show is measured, to the picture's own.
RENDER_SCALE, LABEL_SCALE = 2, 0.5
LAMPLIGHT = (255, 206, 120)


@dataclass(frozen=True)
class View:
    """A camera, the figures around the landmark, the light and the lens."""

    camera: Camera
    sprites: tuple[Sprite, ...]
    weather: Weather
    lens: Lens


@dataclass(frozen=True)
class Sight:
    """What a picture shows of its landmark: shares in [0, 1] and the box around it in pixels."""

    share: float
    size: float
    box: tuple[float, float, float, float]


def look(view: View, building: Building) -> Sight:
    """Measure, from the geometry alone, how much of the building the view shows."""
    camera = view.camera.scaled(LABEL_SCALE)
    labels = np.zeros((camera.height, camera.width), np.uint8)
    for surface, label, matrix, (left, top, right, bottom) in _visible(view, building, camera):
        solid = cv2.extractChannel(surface.texture, 3)
        seen = cv2.warpPerspective(solid, matrix, (right - left, bottom - top), flags=cv2.INTER_NEAREST)
        labels[top:bottom, left:right][seen > 127] = label
    fronts = [surface.plane for surface in building.surfaces if surface.front]
    share = visible_share(int((labels == FRONT).sum()), camera, fronts)
    rows, columns = np.nonzero(labels)
    if not len(rows):
        return Sight(0.0, 0.0, (0.0, 0.0, float(view.camera.width), float(view.camera.height)))
    sides = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / LABEL_SCALE
    left, top, right, bottom = np.minimum(sides, [view.camera.width, view.camera.height] * 2).tolist()
    return Sight(share, len(rows) / labels.size, (left, top, right, bottom))


def render(rng: np.random.Generator, view: View, building: Building | None) -> Picture:
    """(height, width, 3) uint8 RGB."""
    base = _with_shadows(backdrop(rng, view.camera, view.weather), view, building)
    camera = view.camera.scaled(RENDER_SCALE)
    canvas = np.asarray(cv2.resize(base, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR), np.uint8)
    for surface, _, matrix, box in _visible(view, building, camera):
        _paint(canvas, surface, camera, view.weather, matrix, box)
    small = cv2.resize(canvas, (view.camera.width, view.camera.height), interpolation=cv2.INTER_AREA)
    return expose(rng, np.asarray(small, np.uint8), view.weather, view.lens)


def _visible(view: View, building: Building | None, camera: Camera) -> Iterator[tuple[Surface, int, Array, Box]]:
    """The planes turned towards the camera, far to near: each with what it is, and what `_project` gives."""
    for surface, label in _far_to_near(view, building, camera):
        projected = _project(surface, camera)
        if projected is not None:
            yield surface, label, *projected


def _far_to_near(view: View, building: Building | None, camera: Camera) -> Iterator[tuple[Surface, int]]:
    """Figures count as behind or before a landmark by the middle of its footprint."""
    eye = np.asarray(camera.position)

    def distance(sprite: Sprite) -> float:
        return float(np.hypot(*(np.asarray(sprite.foot) - eye)[:2]))

    threshold = float(np.hypot(eye[0], eye[1] - building.depth / 2)) if building else 0.0
    sprites = sorted(view.sprites, key=distance, reverse=True)
    yield from ((sprite.surface(camera), OTHER) for sprite in sprites if distance(sprite) >= threshold)
    for volume in far_to_near(building.volumes, camera) if building else ():
        for surface in volume.surfaces:
            if faces_camera(camera, surface.plane):
                yield surface, FRONT if surface.front else LANDMARK
        yield from ((sprite.surface(camera), LANDMARK) for sprite in volume.sprites)
    yield from ((sprite.surface(camera), OTHER) for sprite in sprites if distance(sprite) < threshold)


def _project(surface: Surface, camera: Camera) -> tuple[Array, Box] | None:
    """The part of the picture that a surface may cover, as a box, and the homography from its texture to there."""
    pixels, depth = project(camera, surface.plane.corners())
    if depth.min() < NEAREST:
        return None
    left, top = np.maximum(np.floor(pixels.min(axis=0)), 0).astype(int).tolist()
    size = camera.width, camera.height
    right, bottom = np.minimum(np.ceil(pixels.max(axis=0)) + 1, size).astype(int).tolist()
    if left >= right or top >= bottom:
        return None
    height, width = surface.texture.shape[:2]
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    shift = np.array([[1, 0, -left - 0.5], [0, 1, -top - 0.5], [0, 0, 1.0]])
    return shift @ homography(camera, surface.plane, width, height) @ half, (left, top, right, bottom)


def _paint(canvas: Picture, surface: Surface, camera: Camera, weather: Weather, matrix: Array, box: Box) -> None:
    left, top, right, bottom = box
    texture, matrix = _minified(surface, camera, matrix)
    size = (right - left, bottom - top)
    warped = np.asarray(cv2.warpPerspective(texture, matrix, size, flags=cv2.INTER_LINEAR), np.uint8)
    depth = float(np.linalg.norm(surface.plane.corners().mean(axis=0) - camera.position))
    fade = min(0.85, 1 - np.exp(-depth * weather.haze))
    light = face_light(weather, surface.plane.normal() if surface.lit else None)
    tones = np.repeat(np.arange(256.0)[:, None], 4, axis=1)
    tones[:, :3] = tones[:, :3] * light * (1 - fade) + np.asarray(weather.horizon) * fade
    warped = np.asarray(cv2.LUT(warped, tones.clip(0, 255).astype(np.uint8)[None]), np.uint8)
    coloured = cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)
    alpha = np.asarray(cv2.extractChannel(warped, 3), np.uint8)
    if weather.name == "night":
        # Soft edges pass through the value of glass too, but are thinner than a pane.
        glass = ((alpha > GLASS - 20) & (alpha < GLASS + 30)).view(np.uint8)
        panes = np.asarray(cv2.morphologyEx(glass, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)))
        coloured[panes > 0] = LAMPLIGHT
    target = canvas[top:bottom, left:right]
    cv2.copyTo(coloured, (alpha > 127).view(np.uint8), target)


def _minified(surface: Surface, camera: Camera, matrix: Array) -> tuple[Picture, Array]:
    """The texture at about the size it is seen at, so that fine patterns do not alias."""
    pixels, _ = project(camera, surface.plane.corners())
    sides = np.linalg.norm(np.roll(pixels, -1, axis=0) - pixels, axis=1)
    height, width = surface.texture.shape[:2]
    wide, high = max(sides[0], sides[2]) / width, max(sides[1], sides[3]) / height
    if min(wide, high) > 0.6:
        return surface.texture, matrix
    size = max(2, round(width * min(1.0, wide * 1.1))), max(2, round(height * min(1.0, high * 1.1)))
    small = np.asarray(cv2.resize(surface.texture, size, interpolation=cv2.INTER_AREA), np.uint8)
    grow_x, grow_y = width / size[0], height / size[1]
    back = np.array([[grow_x, 0, grow_x / 2 - 0.5], [0, grow_y, grow_y / 2 - 0.5], [0, 0, 1.0]])
    return small, matrix @ back


def _with_shadows(base: Picture, view: View, building: Building | None) -> Picture:
    camera, sun = view.camera, np.asarray(view.weather.sun)
    mask = np.zeros(base.shape[:2], np.uint8)
    for sprite in view.sprites:
        foot, depth = project(camera, np.asarray(sprite.foot)[None])
        if depth[0] > NEAREST:
            reach = camera.focal * sprite.width / depth[0] * 0.45
            centre = foot[0].round().astype(int).tolist()
            cv2.ellipse(mask, centre, (round(reach) + 1, round(reach * 0.16) + 1), 0, 0, 360, 150, -1)
    for volume in building.volumes if building else ():
        if volume.low[2] > 0:
            continue
        (x0, y0, _), (x1, y1, z1) = volume.low, volume.high
        foot = np.array([(x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0)], float)
        slide = np.array([-sun[0], -sun[1], 0]) / max(sun[2], 0.3) * z1 * 0.8
        pixels, depth = project(camera, np.concatenate([foot, foot + slide]))
        if depth.min() > NEAREST:
            hull = cv2.convexHull(pixels.round().astype(np.int32))
            cv2.fillConvexPoly(mask, hull, 255)
    soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), 1.2), np.float32)[..., None] / 255
    strength = 0.15 + 0.5 * min(1.0, max(view.weather.direct))
    return (base * (1 - strength * soft)).astype(np.uint8)

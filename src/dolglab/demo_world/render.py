"""A picture: light, sky, ground and weather, planes and figures from far to near, and the effects of the lens.

The same geometry gives the visible share of the landmark.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dolglab.demo_world.building import Building, Sprite, Surface, far_to_near
from dolglab.demo_world.camera import Array, Camera, faces_camera, homography, project, visible_share
from dolglab.demo_world.grammar import RGB
from dolglab.demo_world.paint import GLASS, Box

Picture = NDArray[np.uint8]
Levels = NDArray[np.float32]
# Of R, G and B.
Factors = tuple[float, float, float]
# The level that contrast does not change.
MIDDLE = 118.0
OTHER, LANDMARK, FRONT = 0, 1, 2
# Nothing is drawn closer to the camera, in metres.
NEAREST = 0.8
# Scales for drawing and for measuring, relative to the size of the picture.
RENDER_SCALE, LABEL_SCALE = 2, 0.5
LAMPLIGHT = (255, 206, 120)


@dataclass(frozen=True)
class Weather:
    """Sky and light of one picture. Light and colours are factors for R, G, B; haze is per metre."""

    name: str
    zenith: RGB
    horizon: RGB
    clouds: float
    cloud_colour: RGB
    sun: tuple[float, float, float]
    direct: Factors
    ambient: Factors
    haze: float


@dataclass(frozen=True)
class Lens:
    """The effects of the camera: factors for R, G, B, contrast, saturation, blur and noise in levels."""

    gains: Factors
    contrast: float
    saturation: float
    blur: float
    motion: int
    noise: float
    vignette: float
    quality: int


# Colours of zenith and horizon, clouds and their colour, strength and tint of the sun, light of the sky, haze.
_SKIES: dict[str, tuple[RGB, RGB, float, RGB, float, Factors, Factors, float]] = {
    "clear": ((84, 142, 214), (190, 216, 236), 0.35, (250, 250, 250), 0.62, (1, 0.96, 0.86), (0.5, 0.53, 0.6), 0.001),
    "cloudy": ((120, 152, 190), (206, 214, 222), 0.75, (240, 240, 242), 0.4, (1, 0.98, 0.93), (0.6, 0.62, 0.66), 0.002),
    "overcast": ((170, 176, 184), (208, 210, 212), 0.5, (190, 194, 200), 0.1, (1, 1, 1), (0.74, 0.75, 0.77), 0.004),
    "sunset": ((92, 96, 156), (246, 178, 118), 0.6, (250, 176, 140), 0.6, (1, 0.74, 0.48), (0.52, 0.46, 0.52), 0.003),
    "haze": ((196, 206, 214), (226, 226, 222), 0.2, (236, 236, 236), 0.3, (1, 0.96, 0.9), (0.64, 0.66, 0.68), 0.0075),
    "rain": ((132, 140, 150), (172, 178, 184), 0.7, (150, 156, 164), 0.05, (1, 1, 1), (0.66, 0.69, 0.74), 0.005),
    "night": ((22, 28, 58), (72, 70, 104), 0.4, (60, 62, 90), 0.12, (0.9, 0.86, 1), (0.46, 0.48, 0.6), 0.0015),
}
_CHANCES = {"clear": 0.36, "cloudy": 0.25, "overcast": 0.13, "sunset": 0.1, "haze": 0.06, "rain": 0.05, "night": 0.05}


def sample_weather(rng: np.random.Generator) -> Weather:
    """Sample sky and light; the sun is anywhere in front of or beside the landmark's front."""
    name = str(rng.choice(list(_CHANCES), p=list(_CHANCES.values())))
    zenith, horizon, clouds, cloud_colour, strength, tint, ambient, haze = _SKIES[name]
    azimuth, elevation = rng.uniform(-1.5, 1.5), rng.uniform(0.25, 0.95) * (0.5 if name == "sunset" else 1)
    flat = np.cos(elevation)
    sun = float(np.sin(azimuth) * flat), float(-np.cos(azimuth) * flat), float(np.sin(elevation))
    r, g, b = (strength * channel for channel in tint)
    return Weather(name, zenith, horizon, clouds, cloud_colour, sun, (r, g, b), ambient, haze * rng.uniform(0.6, 1.4))


def sample_lens(rng: np.random.Generator) -> Lens:
    """Sample white balance, exposure and the defects of a camera."""
    exposure, warmth, tint = rng.normal(0.06, 0.09), rng.normal(0, 0.045), rng.normal(0, 0.02)
    r, g, b = np.exp(np.array([exposure + warmth, exposure + tint, exposure - warmth])).tolist()
    return Lens(
        gains=(r, g, b),
        contrast=float(np.clip(rng.normal(1.05, 0.1), 0.8, 1.3)),
        saturation=float(np.clip(rng.normal(1.05, 0.14), 0.6, 1.4)),
        blur=float(rng.choice([0.0, 0.4, 0.6, 0.9], p=[0.5, 0.28, 0.16, 0.06])),
        motion=int(rng.choice([0, 3], p=[0.92, 0.08])),
        noise=float(rng.uniform(1.0, 4.5)),
        vignette=float(rng.uniform(0, 0.25)),
        quality=int(rng.integers(60, 95)),
    )


def face_light(weather: Weather, normal: Array | None) -> Array:
    """(3,) factors for a face's colours; faces without a normal have painted light."""
    cosine = 0.55 if normal is None else max(0.0, float(np.dot(normal, weather.sun)))
    return np.asarray(weather.ambient) + np.asarray(weather.direct) * cosine


def backdrop(rng: np.random.Generator, camera: Camera, weather: Weather) -> Picture:
    """(height, width, 3) sky and ground as seen by the camera, without objects."""
    width, height = camera.width, camera.height
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / camera.focal
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / camera.focal
    to_world = camera.rotation.astype(np.float32)
    rays = [x[None, :] * to_world[0, axis] + (y * to_world[1, axis] + to_world[2, axis])[:, None] for axis in range(3)]
    level = np.hypot(rays[0], rays[1])
    slope = rays[2] / level
    picture = _sky(rng, slope, weather)
    below = slope < -1e-3
    distance = camera.position[2] / -slope[below]
    along = distance / level[below]
    east = camera.position[0] + rays[0][below] * along
    north = camera.position[1] + rays[1][below] * along
    picture[below] = _ground(rng, east, north, distance, weather)
    return picture.clip(0, 255).astype(np.uint8)


def _sky(rng: np.random.Generator, slope: Levels, weather: Weather) -> Levels:
    rise = np.sqrt(np.clip(slope / 0.7, 0, 1))[..., None]
    horizon, zenith = np.asarray(weather.horizon, np.float32), np.asarray(weather.zenith, np.float32)
    height, width = slope.shape
    # Soft noise in [0, 1], stretched sideways.
    noise = np.zeros((height, width), np.float32)
    for octave, weight in ((2, 1.0), (4, 0.55), (8, 0.3), (16, 0.16)):
        grid = rng.random((octave * 2, octave + 1), np.float32)
        noise += weight * np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC))
    cover = np.clip((np.clip(noise / 2.01, 0, 1) - 0.62 + 0.3 * weather.clouds) * 4, 0, 1)
    cover = (cover * min(1.0, weather.clouds + 0.3))[..., None]
    sky = horizon + (zenith - horizon) * rise
    return np.asarray(sky + (np.asarray(weather.cloud_colour) - sky) * cover, np.float32)


def _ground(rng: np.random.Generator, east: Levels, north: Levels, distance: Levels, weather: Weather) -> Levels:
    """(n, 3) colours of n points on the ground, in metres: a plaza, asphalt, a lawn or sand."""
    kind = int(rng.integers(4))
    colours = [(176, 166, 150), (150, 148, 146), (112, 140, 78), (188, 172, 132)]
    lit = face_light(weather, np.array([0.0, 0.0, 1.0]))
    colour = ((np.asarray(colours[kind]) + rng.integers(-12, 13, 3)) * lit).astype(np.float32)
    cell = float(rng.uniform(1.4, 3.0))
    if kind < 2:
        pattern = ((np.floor(east / cell) + np.floor(north / cell)) % 2) * 0.12 - 0.06
    else:
        pattern = 0.06 * np.sin(east * 1.7 + 2 * np.sin(north * 0.9)) * np.sin(north * 1.3 + np.sin(east * 0.7))
    pattern = pattern * np.clip(1.3 - distance / 50, 0, 1)
    fade = np.clip(distance * (weather.haze + 0.002), 0, 0.85)[:, None]
    tone = colour * ((1 + pattern)[:, None] * (1 - fade))
    return np.asarray(tone + np.asarray(weather.horizon) * fade, np.float32)


def expose(rng: np.random.Generator, picture: Picture, weather: Weather, lens: Lens) -> Picture:
    """Apply the effects of weather and lens: rain, blur, colour, vignette and noise."""
    image = picture.astype(np.float32)
    height, width = image.shape[:2]
    if weather.name == "rain":
        veil = np.zeros((height, width), np.uint8)
        slant = int(rng.integers(-4, 5))
        for left, top in rng.integers(0, (width, height), (220, 2)).tolist():
            cv2.line(veil, (left, top), (left + slant, top + 12), 70, 1)
        soft = np.asarray(cv2.GaussianBlur(veil, (3, 3), 0), np.float32)[..., None]
        image = np.asarray(image + (215 - image) * soft / 255, np.float32)
    if lens.blur:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), lens.blur), np.float32)
    if lens.motion:
        kernel = np.full((1, lens.motion), 1 / lens.motion, np.float32)
        image = np.asarray(cv2.filter2D(image, -1, kernel), np.float32)
    mixing = np.full((3, 3), (1 - lens.saturation) / 3) + np.eye(3) * lens.saturation
    mixing = lens.contrast * mixing * np.asarray(lens.gains)
    offset = np.full((3, 1), MIDDLE * (1 - lens.contrast))
    image = np.asarray(cv2.transform(image, np.hstack([mixing, offset])), np.float32)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    image *= (1 - lens.vignette / 2 * ((x**2)[None, :] + (y**2)[:, None]))[..., None]
    image += rng.standard_normal(image.shape, np.float32) * lens.noise
    return np.clip(image, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class View:
    """A camera, the figures around the landmark, the light and the lens."""

    camera: Camera
    sprites: tuple[Sprite, ...]
    weather: Weather
    lens: Lens


@dataclass(frozen=True)
class Sight:
    """The visible part of the landmark: shares in [0, 1], and its bounding box in pixels."""

    share: float
    size: float
    box: tuple[float, float, float, float]


def look(view: View, building: Building) -> Sight:
    """Measure how much of the building the view shows, from the geometry only."""
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
    """The planes facing the camera, far to near, each with its object and the result of `_project`."""
    for surface, label in _far_to_near(view, building, camera):
        projected = _project(surface, camera)
        if projected is not None:
            yield surface, label, *projected


def _far_to_near(view: View, building: Building | None, camera: Camera) -> Iterator[tuple[Surface, int]]:
    """Figures are behind or in front of a landmark according to the middle of its footprint."""
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
    """A box of the picture that contains the surface, and the homography from its texture to that box."""
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
        # Soft edges also have the value of glass, but are thinner than a pane.
        glass = ((alpha > GLASS - 20) & (alpha < GLASS + 30)).view(np.uint8)
        panes = np.asarray(cv2.morphologyEx(glass, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)))
        coloured[panes > 0] = LAMPLIGHT
    target = canvas[top:bottom, left:right]
    cv2.copyTo(coloured, (alpha > 127).view(np.uint8), target)


def _minified(surface: Surface, camera: Camera, matrix: Array) -> tuple[Picture, Array]:
    """The texture at about its size in the picture, so that fine patterns do not alias."""
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

"""Light, sky, ground and weather of one picture, and what a camera makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dolglab.demo_world.camera import Array, Camera
from dolglab.demo_world.grammar import RGB

Picture = NDArray[np.uint8]
Levels = NDArray[np.float32]
# Of R, G and B.
Factors = tuple[float, float, float]
# The level that contrast leaves alone.
MIDDLE = 118.0


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
    """What the camera adds: factors for R, G, B, contrast, saturation, blur and noise in levels."""

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
    """Draw sky and light; the sun stands anywhere in front of or beside the landmark's front."""
    name = str(rng.choice(list(_CHANCES), p=list(_CHANCES.values())))
    zenith, horizon, clouds, cloud_colour, strength, tint, ambient, haze = _SKIES[name]
    azimuth, elevation = rng.uniform(-1.5, 1.5), rng.uniform(0.25, 0.95) * (0.5 if name == "sunset" else 1)
    flat = np.cos(elevation)
    sun = float(np.sin(azimuth) * flat), float(-np.cos(azimuth) * flat), float(np.sin(elevation))
    r, g, b = (strength * channel for channel in tint)
    return Weather(name, zenith, horizon, clouds, cloud_colour, sun, (r, g, b), ambient, haze * rng.uniform(0.6, 1.4))


def sample_lens(rng: np.random.Generator) -> Lens:
    """Draw white balance, exposure and the faults of a camera."""
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
    """(3,) factors on a face's colours; faces without a normal have their light painted in."""
    cosine = 0.55 if normal is None else max(0.0, float(np.dot(normal, weather.sun)))
    return np.asarray(weather.ambient) + np.asarray(weather.direct) * cosine


def _clouds(rng: np.random.Generator, width: int, height: int) -> Levels:
    """(height, width) soft noise in [0, 1], stretched sideways."""
    total = np.zeros((height, width), np.float32)
    for octave, weight in ((2, 1.0), (4, 0.55), (8, 0.3), (16, 0.16)):
        grid = rng.random((octave * 2, octave + 1), np.float32)
        total += weight * np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC))
    return np.clip(total / 2.01, 0, 1)


def backdrop(rng: np.random.Generator, camera: Camera, weather: Weather) -> Picture:
    """(height, width, 3) sky and ground as the camera sees them, without anything on the ground."""
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
    cover = np.clip((_clouds(rng, slope.shape[1], slope.shape[0]) - 0.62 + 0.3 * weather.clouds) * 4, 0, 1)
    cover = (cover * min(1.0, weather.clouds + 0.3))[..., None]
    sky = horizon + (zenith - horizon) * rise
    return np.asarray(sky + (np.asarray(weather.cloud_colour) - sky) * cover, np.float32)


def _ground(rng: np.random.Generator, east: Levels, north: Levels, distance: Levels, weather: Weather) -> Levels:
    """(n, 3) colours of n points of the ground, given in metres: a plaza, asphalt, a lawn or sand."""
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
    """The picture a camera with this lens saves: rain, blur, colour, vignette and noise."""
    image = picture.astype(np.float32)
    if weather.name == "rain":
        image = _rain(rng, image)
    if lens.blur:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), lens.blur), np.float32)
    if lens.motion:
        kernel = np.full((1, lens.motion), 1 / lens.motion, np.float32)
        image = np.asarray(cv2.filter2D(image, -1, kernel), np.float32)
    mixing = np.full((3, 3), (1 - lens.saturation) / 3) + np.eye(3) * lens.saturation
    mixing = lens.contrast * mixing * np.asarray(lens.gains)
    offset = np.full((3, 1), MIDDLE * (1 - lens.contrast))
    image = np.asarray(cv2.transform(image, np.hstack([mixing, offset])), np.float32)
    height, width = image.shape[:2]
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    image *= (1 - lens.vignette / 2 * ((x**2)[None, :] + (y**2)[:, None]))[..., None]
    image += rng.standard_normal(image.shape, np.float32) * lens.noise
    return np.clip(image, 0, 255).astype(np.uint8)


def _rain(rng: np.random.Generator, image: Levels) -> Levels:
    height, width = image.shape[:2]
    veil = np.zeros((height, width), np.uint8)
    slant = int(rng.integers(-4, 5))
    for x, y in rng.integers(0, (width, height), (220, 2)).tolist():
        cv2.line(veil, (x, y), (x + slant, y + 12), 70, 1)
    soft = np.asarray(cv2.GaussianBlur(veil, (3, 3), 0), np.float32)[..., None]
    return np.asarray(image + (215 - image) * soft / 255, np.float32)

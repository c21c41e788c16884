"""One picture: planes and figures composed from far to near, and how much is seen of the landmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dolglab.demo_world.building import Building, Sprite, Surface, far_to_near
from dolglab.demo_world.camera import (
    Array,
    Camera,
    Point,
    faces_camera,
    grade,
    homography,
    project,
    view_angle,
    visible_share,
)
from dolglab.demo_world.ornament import Figure, Props
from dolglab.demo_world.paint import GLASS
from dolglab.demo_world.photo import Lens, Picture, Weather, backdrop, expose, face_light, sample_lens, sample_weather

Intent = Literal["query", "easy", "hard", "junk"]


@dataclass(frozen=True)
class View:
    """A camera, the figures around the landmark, the light and the lens."""

    camera: Camera
    sprites: tuple[Sprite, ...]
    weather: Weather
    lens: Lens


@dataclass(frozen=True)
class _Stance:
    """Azimuth in degrees from the front's normal, share of the picture to fill, aim off centre, occluders."""

    azimuth: float
    fill: float
    aim: float
    trees: int
    small: int


def sample_view(
    rng: np.random.Generator, building: Building | None, props: Props, intent: Intent, width: int, height: int
) -> View:
    """Draw a view meant as `intent`; without a building, a street. Geometry decides afterwards what it is."""
    stance = _stance(rng, intent)
    extent = (building.width, building.depth, building.top) if building else (30.0, 8.0, 12.0)
    if rng.random() < (0.6 if extent[2] > 1.1 * extent[0] else 0.08):
        width, height = height, width
    camera = _camera(rng, stance, extent, width, height)
    sprites = (
        *_neighbours(rng, camera, stance, extent, props),
        *_occluders(rng, camera, stance, extent, props),
    )
    if building is None:
        sprites = (*sprites, *_street(rng, camera, props))
    return View(camera, sprites, sample_weather(rng), sample_lens(rng))


def _stance(rng: np.random.Generator, intent: Intent) -> _Stance:
    side = float(rng.choice([-1.0, 1.0]))
    if intent == "query":
        return _Stance(side * rng.uniform(0, 28), rng.uniform(0.84, 1.02), 0.04, 0, int(rng.integers(0, 4)))
    if intent == "easy":
        trees, small = int(rng.integers(0, 2)), int(rng.integers(0, 5))
        return _Stance(side * rng.uniform(0, 40), rng.uniform(0.7, 1.05), 0.07, trees, small)
    if intent == "hard":
        return (
            _Stance(side * rng.uniform(36, 60), rng.uniform(0.75, 1.1), 0.1, int(rng.integers(0, 2)), 3),
            _Stance(side * rng.uniform(0, 55), rng.uniform(0.45, 0.62), 0.35, int(rng.integers(0, 2)), 3),
            _Stance(side * rng.uniform(0, 50), rng.uniform(1.25, 1.8), 0.24, 0, 2),
            _Stance(side * rng.uniform(0, 50), rng.uniform(0.72, 1.0), 0.1, int(rng.integers(2, 5)), 4),
        )[rng.integers(4)]
    return (
        _Stance(side * rng.uniform(95, 180), rng.uniform(0.5, 0.95), 0.1, int(rng.integers(0, 2)), 3),
        _Stance(side * rng.uniform(0, 60), rng.uniform(0.9, 1.6), 0.95, int(rng.integers(0, 3)), 4),
        _Stance(side * rng.uniform(0, 70), rng.uniform(0.45, 0.8), 0.2, int(rng.integers(7, 11)), 4),
    )[rng.integers(3)]


def _camera(rng: np.random.Generator, stance: _Stance, extent: Point, width: int, height: int) -> Camera:
    wide, deep, top = extent
    focal = max(width, height) / (2 * np.tan(np.radians(rng.uniform(44, 66)) / 2))
    angle = np.radians(stance.azimuth)
    across = abs(np.cos(angle)) * wide + abs(np.sin(angle)) * deep
    nearest = abs(np.sin(angle)) * wide / 2 if abs(stance.azimuth) < 90 else deep
    fit = focal * max(across / width, top / height) / stance.fill
    distance = max(fit + nearest * 0.6, nearest + 5.0)
    eye = rng.uniform(1.5, 2.6) if rng.random() < 0.75 else rng.uniform(4, 11)
    away = np.array([np.sin(angle), -np.cos(angle)])
    sideways = np.array([np.cos(angle), np.sin(angle)])
    middle = away * (-deep / 2) * abs(np.sin(angle))
    ground = middle + away * distance
    reach = width / focal * fit / 2
    aim = middle + sideways * reach * stance.aim * rng.uniform(-1, 1) * (1 if stance.aim < 0.9 else 1.6)
    level = top * rng.uniform(0.38, 0.5)
    return Camera(
        (float(ground[0]), float(ground[1]), float(eye)),
        (float(aim[0]), float(aim[1]), float(level)),
        float(focal),
        width,
        height,
        float(np.radians(rng.normal(0, 1.6))),
    )


def _set(figure: Figure, spot: Array, size: float = 1.0) -> Sprite:
    return Sprite((float(spot[0]), float(spot[1]), 0.0), figure.width * size, figure.height * size, figure.texture)


def _neighbours(rng: np.random.Generator, camera: Camera, stance: _Stance, extent: Point, props: Props) -> list[Sprite]:
    """Houses and trees beside and behind the landmark, laid out anew for every picture."""
    eye = np.array(camera.position[:2])
    forward = -eye / np.linalg.norm(eye)
    right = np.array([forward[1], -forward[0]])
    wide, deep, _ = extent
    angle = np.radians(stance.azimuth)
    half = (abs(np.cos(angle)) * wide + abs(np.sin(angle)) * deep) / 2
    beyond = float(np.hypot(wide, deep)) * 0.5 + deep * 0.5
    sprites = []
    for side in (-1, 1):
        across = half + rng.uniform(1, 9)
        for _ in range(int(rng.integers(0, 3))):
            house = props.houses[rng.integers(len(props.houses))]
            spot = right * side * (across + house.width / 2) + forward * (beyond * rng.uniform(0.5, 1.0))
            sprites.append(_set(house, spot, float(rng.uniform(0.85, 1.2))))
            across += house.width + rng.uniform(0, 5)
    for _ in range(int(rng.integers(2, 8))):
        pool = props.houses if rng.random() < 0.65 else props.trees
        spot = right * rng.uniform(-60, 60) + forward * (beyond + rng.uniform(6, 45))
        sprites.append(_set(pool[rng.integers(len(pool))], spot, float(rng.uniform(0.9, 1.5))))
    return sprites


def _occluders(rng: np.random.Generator, camera: Camera, stance: _Stance, extent: Point, props: Props) -> list[Sprite]:
    eye = np.array(camera.position[:2])
    aim = np.array(camera.target[:2])
    forward = (aim - eye) / np.linalg.norm(aim - eye)
    right = np.array([forward[1], -forward[0]])
    distance = float(np.linalg.norm(aim - eye))
    sprites = []

    def stand(pool: tuple[Figure, ...], nearest: float, farthest: float, size: float = 1.0) -> None:
        depth = distance * rng.uniform(nearest, farthest)
        if depth > 4:
            spot = eye + forward * depth + right * depth * camera.width / camera.focal * rng.uniform(-0.5, 0.5)
            if -0.5 - extent[0] / 2 > spot[0] or spot[0] > extent[0] / 2 + 0.5 or spot[1] < -1.0:
                sprites.append(_set(pool[rng.integers(len(pool))], spot, size))

    for _ in range(stance.trees):
        stand(props.trees, 0.4, 0.8, float(rng.uniform(0.8, 1.25)))
    for _ in range(stance.small):
        kind = rng.random()
        if kind < 0.6:
            stand(props.people, 0.3, 0.92)
        elif kind < 0.8:
            stand(props.cars, 0.4, 0.85)
        else:
            stand(props.lamps, 0.4, 0.85)
    return sprites


def _street(rng: np.random.Generator, camera: Camera, props: Props) -> list[Sprite]:
    """A row of houses or of trees where a landmark would stand."""
    pool = props.houses if rng.random() < 0.7 else props.trees
    sprites, across = [], -40.0
    while across < 40:
        figure = pool[rng.integers(len(pool))]
        sprites.append(
            _set(
                figure,
                np.array([across + figure.width / 2, rng.uniform(-2, 6)]),
                float(rng.uniform(0.9, 1.3)),
            )
        )
        across += figure.width * 1.1 + float(rng.exponential(2.0))
    return sprites


OTHER, LANDMARK, FRONT = 0, 1, 2
NEAREST = 0.8
RENDER_SCALE = 2
LABEL_SCALE = 0.5
TRIES = 40
LAMPLIGHT = (255, 206, 120)

Labels = NDArray[np.uint8]


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
    for surface, label in _surfaces(view, building, camera):
        _cover(labels, surface, label, camera)
    share = visible_share(int((labels == FRONT).sum()), camera, building.front_planes())
    rows, columns = np.nonzero(labels)
    if not len(rows):
        return Sight(0.0, 0.0, (0.0, 0.0, float(view.camera.width), float(view.camera.height)))
    sides = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / LABEL_SCALE
    left, top, right, bottom = np.minimum(sides, [view.camera.width, view.camera.height] * 2).tolist()
    return Sight(share, len(rows) / labels.size, (left, top, right, bottom))


def sees_whole_planes(camera: Camera, building: Building) -> bool:
    """Whether no corner of the building lies beside or behind the camera."""
    corners = [surface.plane.corners() for volume in building.volumes for surface in volume.surfaces]
    return bool((project(camera, np.concatenate(corners))[1] > NEAREST).all())


def render(rng: np.random.Generator, view: View, building: Building | None) -> Picture:
    """(height, width, 3) uint8 RGB."""
    base = backdrop(rng, view.camera, view.weather)
    base = _with_shadows(base, view, building)
    camera = view.camera.scaled(RENDER_SCALE)
    canvas = np.asarray(cv2.resize(base, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR), np.uint8)
    for surface, _ in _surfaces(view, building, camera):
        _paint(canvas, surface, camera, view.weather)
    small = cv2.resize(canvas, (view.camera.width, view.camera.height), interpolation=cv2.INTER_AREA)
    return expose(rng, np.asarray(small, np.uint8), view.weather, view.lens)


def _surfaces(view: View, building: Building | None, camera: Camera) -> list[tuple[Surface, int]]:
    """All planes turned towards the camera, far to near, with what they are."""
    eye = np.asarray(camera.position)

    def distance(sprite: Sprite) -> float:
        return float(np.hypot(*(np.asarray(sprite.foot) - eye)[:2]))

    landmark: list[tuple[Surface, int]] = []
    for volume in far_to_near(building.volumes, camera) if building else []:
        for surface in volume.surfaces:
            if faces_camera(camera, surface.plane):
                landmark.append((surface, FRONT if surface.front else LANDMARK))
        landmark.extend((sprite.surface(camera), LANDMARK) for sprite in volume.sprites)
    threshold = _footprint_distance(building, eye) if building else 0.0
    sprites = sorted(view.sprites, key=distance, reverse=True)
    behind = [(sprite.surface(camera), OTHER) for sprite in sprites if distance(sprite) >= threshold]
    before = [(sprite.surface(camera), OTHER) for sprite in sprites if distance(sprite) < threshold]
    return [*behind, *landmark, *before]


def _footprint_distance(building: Building, eye: Array) -> float:
    """Metres on the ground from the eye to the middle of the footprint."""
    return float(np.hypot(eye[0], eye[1] - building.depth / 2))


def _region(camera: Camera, surface: Surface) -> tuple[Array, tuple[int, int, int, int]] | None:
    """Homography into the part of the picture that the surface may cover, and that part's box."""
    pixels, depth = project(camera, surface.plane.corners())
    if depth.min() < NEAREST:
        return None
    left, top = np.floor(pixels.min(axis=0)).astype(int)
    right, bottom = np.ceil(pixels.max(axis=0)).astype(int) + 1
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, camera.width), min(bottom, camera.height)
    if left >= right or top >= bottom:
        return None
    height, width = surface.texture.shape[:2]
    to_picture = homography(camera, surface.plane, width, height)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    shift = np.array([[1, 0, -left - 0.5], [0, 1, -top - 0.5], [0, 0, 1.0]])
    return shift @ to_picture @ half, (int(left), int(top), int(right), int(bottom))


def _cover(labels: Labels, surface: Surface, label: int, camera: Camera) -> None:
    found = _region(camera, surface)
    if found is None:
        return
    matrix, (left, top, right, bottom) = found
    solid = cv2.extractChannel(surface.texture, 3)
    seen = cv2.warpPerspective(solid, matrix, (right - left, bottom - top), flags=cv2.INTER_NEAREST)
    labels[top:bottom, left:right][seen > 127] = label


def _paint(canvas: Picture, surface: Surface, camera: Camera, weather: Weather) -> None:
    found = _region(camera, surface)
    if found is None:
        return
    matrix, (left, top, right, bottom) = found
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
    if weather.night:
        coloured[_panes(alpha)] = LAMPLIGHT
    target = canvas[top:bottom, left:right]
    cv2.copyTo(coloured, (alpha > 127).view(np.uint8), target)


def _panes(alpha: Labels) -> NDArray[np.bool_]:
    """Where there is glass; soft edges pass through its value too, but are thinner than a pane."""
    glass = ((alpha > GLASS - 20) & (alpha < GLASS + 30)).view(np.uint8)
    return np.asarray(cv2.morphologyEx(glass, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))) > 0


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


def wanted_view(
    rng: np.random.Generator,
    building: Building,
    props: Props,
    intent: Intent,
    width: int,
    height: int,
    query: Camera | None = None,
) -> tuple[View, Sight, float]:
    """Draw views until one turns out as `intent` beside `query`; the last one if none does.

    Returns the view, what it shows, and the degrees between its line of sight and the query's. Without a
    query the view is measured against the front's normal.
    """
    straight = query or Camera((0.0, -60.0, building.height / 2), building.centre, 1.0, 1, 1)
    wanted = "easy" if intent == "query" else intent

    def attempt() -> tuple[View, Sight, float]:
        view = sample_view(rng, building, props, intent, width, height)
        return view, look(view, building), view_angle(view.camera, straight, building.centre)

    view, sight, angle = attempt()
    for _ in range(TRIES):
        if sees_whole_planes(view.camera, building) and grade(sight.share, sight.size, angle) == wanted:
            break
        view, sight, angle = attempt()
    return view, sight, angle

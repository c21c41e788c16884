"""Pinhole geometry: cameras, textured planes, their homographies, and the grade of a view relative to a query.

World axes are in metres: x to the right along a landmark's front, y away from the front, z up; the front
wall is in the plane y = 0 and faces negative y. Image axes are in pixels, y down, the origin at the
outer corner of the first pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Point = tuple[float, float, float]
Grade = Literal["easy", "hard", "junk"]

# Shares of a face and of a picture, and degrees; see `grade`.
JUNK_SHARE, JUNK_SIZE = 0.2, 0.008
EASY_SHARE, EASY_SIZE, EASY_ANGLE = 0.7, 0.1, 35.0


@dataclass(frozen=True)
class Camera:
    """A pinhole at `position` looking at `target`; focal length in pixels, roll in radians."""

    position: Point
    target: Point
    focal: float
    width: int
    height: int
    roll: float = 0.0

    @cached_property
    def rotation(self) -> Array:
        """(3, 3): rows are the image's right, down and forward directions in world axes."""
        forward = np.subtract(self.target, self.position)
        forward = forward / np.linalg.norm(forward)
        right = np.array([forward[1], -forward[0], 0.0]) / np.hypot(forward[0], forward[1])
        down = _cross(forward, right)
        c, s = np.cos(self.roll), np.sin(self.roll)
        return np.stack([c * right + s * down, c * down - s * right, forward])

    @cached_property
    def matrix(self) -> Array:
        """(3, 4) projection matrix from homogeneous world points to homogeneous pixels."""
        intrinsics = np.array([[self.focal, 0.0, self.width / 2], [0.0, self.focal, self.height / 2], [0.0, 0.0, 1.0]])
        shift = -self.rotation @ np.asarray(self.position)
        return intrinsics @ np.column_stack([self.rotation, shift])

    def scaled(self, factor: float) -> Camera:
        """The same view on a picture `factor` times as large (its sides are rounded)."""
        width, height = round(self.width * factor), round(self.height * factor)
        return replace(self, focal=self.focal * factor, width=width, height=height)


@dataclass(frozen=True)
class Plane:
    """A parallelogram in space: its upper left corner, and the vectors along its upper and its left edge."""

    origin: Point
    along: Point
    down: Point

    def corners(self) -> Array:
        """(4, 3), clockwise from the upper left as seen from outside."""
        o, u, v = np.asarray(self.origin), np.asarray(self.along), np.asarray(self.down)
        return np.stack([o, o + u, o + u + v, o + v])

    def normal(self) -> Array:
        """(3,) unit vector pointing out of the visible side."""
        normal = _cross(self.down, self.along)
        return normal / np.linalg.norm(normal)


def project(camera: Camera, points: Array) -> tuple[Array, Array]:
    """Pixels (n, 2) and depths (n,) in metres of world points (n, 3); only depths > 0 have a pixel."""
    homogeneous = points @ camera.matrix[:, :3].T + camera.matrix[:, 3]
    depth = homogeneous[:, 2]
    return homogeneous[:, :2] / np.where(depth == 0, np.finfo(float).tiny, depth)[:, None], depth


def homography(camera: Camera, plane: Plane, width: int, height: int) -> Array:
    """(3, 3): texture coordinates of a `width` x `height` texture on `plane` to pixels."""
    frame = np.zeros((4, 3))
    frame[:3, 0] = np.asarray(plane.along) / width
    frame[:3, 1] = np.asarray(plane.down) / height
    frame[:3, 2] = plane.origin
    frame[3, 2] = 1.0
    return camera.matrix @ frame


def faces_camera(camera: Camera, plane: Plane) -> bool:
    """Whether the visible side of `plane` faces the camera."""
    return bool(np.dot(np.subtract(camera.position, plane.origin), plane.normal()) > 0)


def billboard(camera: Camera, foot: Point, width: float, height: float) -> Plane:
    """An upright plane that faces the camera, with the middle of its lower edge at `foot`."""
    away = np.array([foot[0] - camera.position[0], foot[1] - camera.position[1]])
    away = away / max(float(np.linalg.norm(away)), 1e-9)
    right = np.array([away[1], -away[0], 0.0]) * width
    corner = np.asarray(foot) - right / 2 + (0.0, 0.0, height)
    return Plane(tuple(corner.tolist()), tuple(right.tolist()), (0.0, 0.0, -height))


def polygon_area(points: Array) -> float:
    """Area of a simple polygon (n, 2), in the square of its unit."""
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def projected_area(camera: Camera, planes: Sequence[Plane]) -> float:
    """Square pixels that the planes facing the camera would cover without occlusion and cropping."""
    return sum(polygon_area(project(camera, plane.corners())[0]) for plane in planes if faces_camera(camera, plane))


def visible_share(visible_pixels: int, camera: Camera, planes: Sequence[Plane]) -> float:
    """Visible share in [0, 1] of the planes' projected area; 0 if all face away."""
    full = projected_area(camera, planes)
    return min(1.0, visible_pixels / full) if full > 0 else 0.0


def view_angle(one: Camera, other: Camera, centre: Point) -> float:
    """Degrees between the two lines of sight from `centre` to the cameras."""
    a, b = np.subtract(one.position, centre), np.subtract(other.position, centre)
    cosine = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def grade(share: float, size: float, angle: float) -> Grade:
    """The grade of a view relative to a query of the same landmark.

    `share` is the visible share of the face the query shows, `size` the share of the picture that the
    landmark fills, `angle` the degrees between the two lines of sight.
    """
    if share < JUNK_SHARE or size < JUNK_SIZE:
        return "junk"
    if share >= EASY_SHARE and size >= EASY_SIZE and angle <= EASY_ANGLE:
        return "easy"
    return "hard"


def _cross(a: Point | Array, b: Point | Array) -> Array:
    """A faster `np.cross` for two single 3-vectors."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])

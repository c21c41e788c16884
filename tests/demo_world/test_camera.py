"""The pinhole geometry compared with plain trigonometry."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dolglab.demo_world.camera import (
    Camera,
    Plane,
    billboard,
    faces_camera,
    grade,
    homography,
    polygon_area,
    project,
    projected_area,
    view_angle,
    visible_share,
)

FRONT = Plane((-8.0, 0.0, 12.0), (16.0, 0.0, 0.0), (0.0, 0.0, -12.0))

cameras = st.builds(
    lambda azimuth, distance, eye, aim, focal, roll: Camera(
        (distance * np.sin(azimuth), -distance * np.cos(azimuth), eye), (0.0, 0.0, aim), focal, 256, 192, roll
    ),
    st.floats(-3.1, 3.1),
    st.floats(18, 90),
    st.floats(0.5, 20),
    st.floats(0, 12),
    st.floats(100, 400),
    st.floats(-0.1, 0.1),
)
examples = settings(max_examples=40, deadline=None, derandomize=True)


def test_projection_of_a_level_camera_follows_similar_triangles():
    camera = Camera((1.0, -20.0, 3.0), (1.0, 0.0, 3.0), 200.0, 256, 192)
    points = np.array([[1.0, 0.0, 3.0], [5.0, 0.0, 3.0], [1.0, 20.0, 9.0]])
    pixels, depth = project(camera, points)
    np.testing.assert_allclose(depth, [20.0, 20.0, 40.0])
    np.testing.assert_allclose(pixels, [[128, 96], [128 + 200 * 4 / 20, 96], [128, 96 - 200 * 6 / 40]])


@examples
@given(cameras)
def test_rotation_matrices_are_orthonormal(camera):
    np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.rotation) == pytest.approx(1.0)


@examples
@given(cameras, st.floats(0, 1), st.floats(0, 1))
def test_homography_agrees_with_projection_over_the_whole_plane(camera, across, down):
    width, height = 320, 240
    point = np.array(FRONT.origin) + across * np.array(FRONT.along) + down * np.array(FRONT.down)
    pixels, depth = project(camera, point[None])
    assume(depth[0] > 0.5)
    mapped = homography(camera, FRONT, width, height) @ (across * width, down * height, 1.0)
    np.testing.assert_allclose(mapped[:2] / mapped[2], pixels[0], rtol=1e-6, atol=1e-6)


@examples
@given(cameras)
def test_a_face_is_seen_from_its_own_side_only(camera):
    assert faces_camera(camera, FRONT) == (camera.position[1] < 0)


@examples
@given(cameras, st.floats(0.2, 3.0))
def test_scaling_a_camera_scales_its_pixels(camera, factor):
    larger = Camera(camera.position, camera.target, camera.focal * factor, 256, 192, camera.roll)
    centre = np.array([128, 96])
    one, depth = project(camera, FRONT.corners())
    assume(depth.min() > 0.5)
    np.testing.assert_allclose(
        project(larger, FRONT.corners())[0] - centre, (one - centre) * factor, rtol=1e-6, atol=1e-6
    )
    assert camera.scaled(0.5).matrix[0, 0] == pytest.approx(camera.matrix[0, 0] / 2, abs=1e-6)


@examples
@given(cameras)
def test_a_billboard_stands_upright_on_its_foot_and_faces_the_camera(camera):
    plane = billboard(camera, (2.0, -5.0, 0.0), 3.0, 7.0)
    corners = plane.corners()
    np.testing.assert_allclose((corners[2] + corners[3]) / 2, (2.0, -5.0, 0.0), atol=1e-9)
    np.testing.assert_allclose(corners[0, 2], 7.0)
    toward = np.subtract(camera.position, (2.0, -5.0, 0.0))[:2]
    np.testing.assert_allclose(plane.normal()[:2], toward / np.linalg.norm(toward), atol=1e-9)
    assert faces_camera(camera, plane)


def test_area_of_known_polygons():
    assert polygon_area(np.array([[0, 0], [4, 0], [4, 3], [0, 3]], float)) == pytest.approx(12)
    assert polygon_area(np.array([[0, 0], [0, 2], [5, 0]], float)) == pytest.approx(5)


def test_projected_area_and_visible_share_of_a_frontal_wall():
    camera = Camera((0.0, -40.0, 6.0), (0.0, 0.0, 6.0), 200.0, 256, 192)
    area = (200 * 16 / 40) * (200 * 12 / 40)
    assert projected_area(camera, [FRONT]) == pytest.approx(area)
    assert visible_share(round(area), camera, [FRONT]) == pytest.approx(1.0)
    assert visible_share(round(area / 4), camera, [FRONT]) == pytest.approx(0.25)
    assert visible_share(0, camera, [FRONT]) == 0.0
    behind = Camera((0.0, 40.0, 6.0), (0.0, 0.0, 6.0), 200.0, 256, 192)
    assert visible_share(100, behind, [FRONT]) == 0.0


@pytest.mark.parametrize(("azimuth", "degrees"), [(0.0, 0.0), (np.pi / 6, 30.0), (np.pi / 2, 90.0), (np.pi, 180.0)])
def test_view_angle(azimuth, degrees):
    one = Camera((0.0, -30.0, 5.0), (0.0, 0.0, 5.0), 200.0, 256, 192)
    other = Camera((50 * np.sin(azimuth), -50 * np.cos(azimuth), 5.0), (0.0, 0.0, 5.0), 200.0, 256, 192)
    assert view_angle(one, other, (0.0, 0.0, 5.0)) == pytest.approx(degrees, abs=1e-5)


@pytest.mark.parametrize(
    ("share", "size", "angle", "expected"),
    [
        (1.0, 0.3, 5.0, "easy"),
        (1.0, 0.3, 60.0, "hard"),
        (0.4, 0.3, 5.0, "hard"),
        (1.0, 0.03, 5.0, "hard"),
        (0.1, 0.3, 5.0, "junk"),
        (0.0, 0.3, 150.0, "junk"),
        (1.0, 0.001, 5.0, "junk"),
    ],
)
def test_grade(share, size, angle, expected):
    assert grade(share, size, angle) == expected

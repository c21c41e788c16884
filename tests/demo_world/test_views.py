"""The visible part of a landmark, measured on scenes with a known answer."""

from dataclasses import replace

import numpy as np
import pytest

from dolglab.demo_world.building import Sprite, Volume, build, far_to_near
from dolglab.demo_world.camera import Camera, grade, project
from dolglab.demo_world.grammar import sample_family
from dolglab.demo_world.render import View, look, render, sample_lens, sample_weather
from dolglab.demo_world.shoot import wanted_view
from dolglab.demo_world.surroundings import make_props


@pytest.fixture(scope="module")
def building():
    """A temple: a box with a gable, without towers in front of it."""
    for number in range(100):
        landmark = sample_family(np.random.default_rng(number), 1)[0]
        if landmark.style.kind == "temple":
            return build(np.random.default_rng(0), landmark)
    raise AssertionError("no temple among a hundred families")


def view_from(x, y, *, aim=(0.0, 0.0, 6.0), sprites=()):
    rng = np.random.default_rng(3)
    camera = Camera((x, y, 2.0), aim, 220.0, 256, 192)
    return View(camera, tuple(sprites), sample_weather(rng), sample_lens(rng))


def test_a_front_in_full_view_is_wholly_visible(building):
    sight = look(view_from(0.0, -48.0), building)
    assert sight.share > 0.97


def test_a_front_seen_from_behind_is_not_visible(building):
    sight = look(view_from(10.0, 80.0, aim=(0.0, 20.0, 6.0)), building)
    assert sight.share == 0.0
    assert sight.size > 0.02


def test_a_wall_before_the_front_hides_it(building):
    texture = np.full((8, 8, 4), 255, np.uint8)
    whole = Sprite((0.0, -20.0, 0.0), 80.0, 60.0, texture)
    assert look(view_from(0.0, -48.0, sprites=[whole]), building).share == 0.0
    halfway = 2.0 + (building.height / 2 - 2.0) / 2
    lower_half = Sprite((0.0, -24.0, 0.0), 80.0, halfway, texture)
    assert look(view_from(0.0, -48.0, sprites=[lower_half]), building).share == pytest.approx(0.5, abs=0.06)


def test_objects_behind_hide_nothing(building):
    texture = np.full((8, 8, 4), 255, np.uint8)
    behind = Sprite((0.0, 60.0, 0.0), 200.0, 80.0, texture)
    bare, crowded = (look(view_from(0.0, -48.0), building), look(view_from(0.0, -48.0, sprites=[behind]), building))
    assert bare == crowded


def test_cropping_counts_as_hiding(building):
    straight = look(view_from(0.0, -48.0), building)
    angle = np.arctan2(256 / 2, 220.0)
    cropped = look(view_from(0.0, -48.0, aim=(float(48 * np.tan(angle)), 0.0, 6.0)), building)
    assert straight.share > 0.97
    assert 0.3 < cropped.share < 0.5, "the half beyond the edge would have been stretched"


def test_the_box_encloses_the_projected_corners(building):
    view = view_from(6.0, -52.0)
    corners = np.concatenate([s.plane.corners() for v in building.volumes for s in v.surfaces])
    pixels, _ = project(view.camera, corners)
    expected = [*pixels.min(axis=0), *pixels.max(axis=0)]
    np.testing.assert_allclose(look(view, building).box, expected, atol=5.0)


def test_volumes_are_ordered_far_to_near(building):
    left = Volume((-9.0, 0.0, 0.0), (-4.0, 5.0, 9.0), ())
    middle = Volume((-4.0, 0.0, 0.0), (4.0, 9.0, 9.0), ())
    porch = Volume((-2.0, -4.0, 0.0), (2.0, 0.0, 12.0), ())
    for order in ((left, middle, porch), (porch, middle, left), (middle, porch, left)):
        assert far_to_near(order, Camera((-40.0, -20.0, 2.0), (0, 0, 5), 200, 256, 192)).index(middle) == 0
        assert far_to_near(order, Camera((30.0, 60.0, 2.0), (0, 0, 5), 200, 256, 192))[-1] is middle


@pytest.mark.parametrize("intent", ["easy", "hard", "junk"])
def test_sampled_views_have_the_intended_grade(building, intent):
    props = make_props(0)
    rng = np.random.default_rng([5, len(intent)])
    query, sight, angle = wanted_view(rng, building, props, "query", 256, 192)
    assert grade(sight.share, sight.size, angle) == "easy"
    _, sight, angle = wanted_view(rng, building, props, intent, 256, 192, query.camera)
    assert grade(sight.share, sight.size, angle) == intent


def test_a_picture_depends_only_on_its_generator(building):
    view = view_from(4.0, -40.0)
    one, same = (render(np.random.default_rng(7), view, building) for _ in range(2))
    other = render(np.random.default_rng(8), view, building)
    assert one.shape == (192, 256, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_an_upright_street_without_a_landmark(building):
    view = view_from(4.0, -40.0)
    upright = replace(view, camera=replace(view.camera, width=192, height=256))
    assert render(np.random.default_rng(7), upright, None).shape == (256, 192, 3)

"""Attention maps over photos."""

import io

import numpy as np
import pytest
from PIL import Image

from dolglab.results.pictures import MAX_SIDE, attention_overlay


def opened(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def saturation(pixels):
    return pixels.max(-1) - pixels.min(-1)


def test_heat_is_drawn_where_the_scores_are():
    photo = np.full((120, 160, 3), 128, np.uint8)
    scores = np.zeros((6, 8), np.float32)
    scores[0:2, 6:8] = 3.0
    image = opened(attention_overlay(photo, scores))
    assert image.shape == (120, 160, 3)
    hot, cold = image[5:25, 135:155], image[60:, :100]
    # The strongest colour is yellow: much red and green, little blue.
    assert (hot[..., :2].min(-1) > hot[..., 2] + 20).all()
    assert saturation(cold).max() < 8
    assert np.abs(cold - 128).max() < 6


def test_the_photo_stays_legible_under_the_heat():
    photo = np.zeros((80, 80, 3), np.uint8)
    photo[:, 40:] = 255
    image = opened(attention_overlay(photo, np.ones((4, 4))))
    dark, light = image[:, :38].mean(), image[:, 42:].mean()
    assert light - dark > 60


def test_zero_scores_leave_the_photo_in_grey():
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = opened(attention_overlay(photo, np.zeros((4, 4), np.float32)))
    grey = np.asarray(Image.fromarray(photo).convert("L")).astype(int)
    assert np.abs(image - grey[..., None]).mean() < 6


@pytest.mark.parametrize("scores", [np.array([[5.0]]), np.ones((1, 9)), np.eye(30) * 1e30])
def test_any_grid_and_scale_are_drawn(scores):
    photo = np.full((50, 70, 3), 200, np.uint8)
    assert saturation(opened(attention_overlay(photo, scores))).max() > 40


def test_a_single_peak_is_visible():
    scores = np.zeros((20, 20))
    scores[10, 10] = 0.01
    image = opened(attention_overlay(np.full((200, 200, 3), 128, np.uint8), scores))
    assert saturation(image)[100:110, 100:110].max() > 60
    assert saturation(image)[:80].max() < 8


def test_a_large_photo_is_shrunk_with_its_aspect_ratio():
    image = opened(attention_overlay(np.zeros((1500, 3000, 3), np.uint8), np.ones((3, 6))))
    assert image.shape == (MAX_SIDE // 2, MAX_SIDE, 3)


@pytest.mark.parametrize("scores", [np.empty((0, 4)), np.array([[1.0, np.nan]]), np.array([[np.inf]])])
def test_scores_that_are_not_finite_are_refused(scores):
    with pytest.raises(ValueError, match="finite"):
        attention_overlay(np.zeros((8, 8, 3), np.uint8), scores)

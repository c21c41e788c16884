"""The picture of two photos and their matches."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dolglab.contracts import LocalFeatures
from dolglab.results.pictures import HEIGHT, MATCH_GAP, match_figure


def opened(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), np.int64)


def at(points: np.ndarray) -> LocalFeatures:
    ones = np.ones(len(points), np.float32)
    return LocalFeatures(points.astype(np.float32), ones, ones, np.ones((len(points), 1)), (1, 1))


def test_lines_connect_inliers() -> None:
    a, b = np.full((210, 300, 3), 40, np.uint8), np.full((840, 600, 3), 90, np.uint8)
    features = at(np.array([[10.0, 10.0], [150.0, 105.0]])), at(np.array([[300.0, 420.0], [10.0, 10.0]]))
    matches = np.array([[0, 1], [1, 0]])
    plain = opened(match_figure(a, b, *features, matches, np.array([False, False])))
    assert plain.shape[1] == 600 + MATCH_GAP + 300
    drawn = opened(match_figure(a, b, *features, matches, np.array([False, True])))
    changed = np.abs(drawn[:HEIGHT] - plain[:HEIGHT]).sum(2) > 100
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - 210) < 3
    assert abs(columns.min() - 300) < 8
    assert abs(columns.max() - (600 + MATCH_GAP + 150)) < 8


def test_photos_can_be_stacked() -> None:
    a, b = np.full((210, 300, 3), 40, np.uint8), np.full((840, 600, 3), 90, np.uint8)
    features = at(np.array([[150.0, 10.0]])), at(np.array([[300.0, 420.0]]))
    plain, drawn = (
        opened(match_figure(a, b, *features, np.array([[0, 0]]), np.array([inlier]), stacked=True))
        for inlier in (False, True)
    )
    below = HEIGHT + MATCH_GAP
    assert plain.shape[1] == 600
    assert plain[below - MATCH_GAP // 2].min() > 250
    rows, columns = np.nonzero(np.abs(drawn[: below + HEIGHT] - plain[: below + HEIGHT]).sum(2) > 100)
    # The middle of both, from near the upper edge of the first to the middle of the second.
    assert abs(rows.min() - 20) < 8
    assert abs(rows.max() - (below + 210)) < 8
    assert abs(columns - 300).max() < 8


def test_very_many_matches_are_thinned() -> None:
    rng = np.random.default_rng(0)
    photo = np.zeros((100, 100, 3), np.uint8)
    pictures = []
    for count in (5, 5000):
        features, pairs = at(rng.uniform(0, 100, (count, 2))), np.tile(np.arange(count), (2, 1)).T
        figure = match_figure(photo, photo, features, features, pairs, np.ones(count, np.bool_))
        pictures.append(opened(figure)[:HEIGHT].max(2))
    covered = [np.count_nonzero(picture > 60) / picture.size for picture in pictures]
    assert covered[0] < covered[1] < 0.6

"""The picture of two photos and their matches."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dolglab.results.pictures import HEIGHT, MATCH_GAP, match_figure


def opened(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), np.int64)


def test_lines_join_the_matched_points() -> None:
    a, b = np.full((210, 300, 3), 40, np.uint8), np.full((840, 600, 3), 90, np.uint8)
    plain = opened(match_figure(a, b, np.empty((0, 2), np.float32), np.empty((0, 2), np.float32), "0 inliers"))
    assert plain.shape[1] == 600 + MATCH_GAP + 300
    points = np.array([[150.0, 105.0]], np.float32), np.array([[300.0, 420.0]], np.float32)
    drawn = opened(match_figure(a, b, *points, "1 inlier"))
    changed = np.abs(drawn[:HEIGHT] - plain[:HEIGHT]).sum(2) > 100
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - 210) < 3
    assert abs(columns.min() - 300) < 8
    assert abs(columns.max() - (600 + MATCH_GAP + 150)) < 8


def test_very_many_matches_are_thinned() -> None:
    rng = np.random.default_rng(0)
    photo = np.zeros((100, 100, 3), np.uint8)
    few, many = (rng.uniform(0, 100, (count, 2)).astype(np.float32) for count in (5, 5000))
    pictures = [opened(match_figure(photo, photo, points, points, ""))[:HEIGHT].max(2) for points in (few, many)]
    covered = [np.count_nonzero(picture > 60) / picture.size for picture in pictures]
    assert covered[0] < covered[1] < 0.6

"""Matching, verification and re-ranking by local features."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from src.contracts import InputError, LocalFeatures, Shortlist
from src.retrieval.rerank.matching import mutual_matches
from src.retrieval.rerank.spatial import Spatial
from src.retrieval.rerank.verification import inliers


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def features(points: NDArray[np.floating], descriptors: NDArray[np.floating]) -> LocalFeatures:
    ones = np.ones(len(points), np.float32)
    return LocalFeatures(points.astype(np.float32), ones, ones, unit(descriptors).astype(np.float16), (500, 500))


def test_matches_are_each_others_nearest_as_in_a_loop() -> None:
    rng = np.random.default_rng(0)
    a, b = unit(rng.standard_normal((40, 8))), unit(rng.standard_normal((30, 8)))
    cosines = a.astype(np.float64) @ b.T
    found = [(i, int(cosines[i].argmax())) for i in range(40)]
    expected = [(i, j) for i, j in found if cosines[:, j].argmax() == i]
    assert mutual_matches(a, b).tolist() == [list(pair) for pair in expected]
    sure = [(i, j) for i, j in expected if cosines[i, j] >= 0.7]
    assert mutual_matches(a, b, least=0.7).tolist() == [list(pair) for pair in sure]
    distance = np.sqrt(2 - 2 * cosines)
    clear = [(i, j) for i, j in expected if distance[i, j] <= 0.8 * np.sort(distance[i])[1]]
    assert 0 < len(clear) < len(expected)
    assert mutual_matches(a, b, ratio=0.8).tolist() == [list(pair) for pair in clear]


def test_nothing_matches_nothing() -> None:
    some, none = unit(np.eye(3)), np.empty((0, 3), np.float16)
    assert mutual_matches(some, none).shape == (0, 2)
    assert mutual_matches(none, some).shape == (0, 2)
    assert mutual_matches(some, some[:1], ratio=0.5).tolist() == [[0, 0]]


@pytest.mark.parametrize("kind", ["affine", "homography"])
@pytest.mark.parametrize("wrong", [0.0, 0.5, 0.8])
def test_finds_the_matches_that_one_transformation_explains(kind: str, wrong: float) -> None:
    rng = np.random.default_rng(1)
    a = rng.uniform(0, 1000, (200, 2)).astype(np.float32)
    b = a @ np.array([[0.9, -0.2], [0.25, 0.8]]).T + [30, -40] + rng.normal(0, 1, (200, 2))
    false = rng.random(200) < wrong
    b[false] = rng.uniform(0, 1000, (int(false.sum()), 2))
    found, transformation = inliers(a, b.astype(np.float32), kind, residual=8.0)
    assert transformation is not None
    assert found[~false].mean() > 0.97
    assert found[false].mean() < 0.05 if wrong else True
    again, _ = inliers(a, b.astype(np.float32), kind, residual=8.0)
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("kind", ["affine", "homography"])
def test_too_little_or_nothing_sensible_has_no_inlier(kind: str) -> None:
    rng = np.random.default_rng(2)
    few = rng.uniform(0, 100, (2, 2)).astype(np.float32)
    many = rng.uniform(0, 100, (50, 2)).astype(np.float32)
    line = np.stack([np.arange(50.0), 2 * np.arange(50.0)], 1).astype(np.float32)
    cases = {
        "none": (few[:0], few[:0]),
        "fewer than determine one": (few, few),
        "one point": (np.ones((50, 2), np.float32), np.ones((50, 2), np.float32)),
        "a line": (line, line),
        "mirrored": (many, many * np.array([-1, 1], np.float32)),
        "shrunk to a point": (many, 0.01 * many),
    }
    for case, (a, b) in cases.items():
        found, transformation = inliers(a, b, kind, residual=1.0)
        assert found.shape == (len(a),), case
        assert not found.any(), case
        assert transformation is None, case


def scene(rng: np.random.Generator, shared: int, others: int, code: NDArray[np.floating]) -> LocalFeatures:
    """A view with the first `shared` points of a landmark, slightly turned, among others of its own."""
    base = np.random.default_rng(7).uniform(50, 450, (len(code), 2))[:shared]
    points = np.concatenate([base @ np.array([[0.98, -0.1], [0.1, 0.98]]).T + 5, rng.uniform(0, 500, (others, 2))])
    own = code[:shared] + 0.05 * rng.standard_normal((shared, code.shape[1]))
    return features(points, np.concatenate([own, rng.standard_normal((others, code.shape[1]))]))


def test_answers_with_more_inliers_come_first_and_equal_ones_stay() -> None:
    rng = np.random.default_rng(3)
    code = rng.standard_normal((40, 16))
    images = {
        0: scene(rng, 0, 30, code),
        1: scene(rng, 12, 30, code),
        2: features(np.empty((0, 2)), np.empty((0, 16))),
        3: scene(rng, 35, 10, code),
        4: features(np.zeros((2, 2)), rng.standard_normal((2, 16))),
        9: scene(rng, 40, 20, code),
    }
    spatial = Spatial(residual=5.0, least=0.9)
    counts = [spatial.verified(images[9], images[position]).count for position in range(5)]
    assert counts == [0, 12, 0, 35, 0]
    shortlist = Shortlist(
        query_image=9,
        positions=np.arange(5),
        scores=np.linspace(1, 0, 5, dtype=np.float32),
        query_descriptor=np.empty(0, np.float32),
        descriptors=np.empty((5, 0), np.float32),
        local=images.__getitem__,
    )
    assert spatial(shortlist).tolist() == [3, 1, 0, 2, 4]
    assert spatial.local
    assert spatial.describe()["rerank"] == "spatial"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "similarity"}, r"rerank\.kind is affine or homography"),
        ({"residual": 0.0}, r"residual above 0"),
        ({"depth": 0}, r"at least 1"),
        ({"ratio": 1.5}, r"ratio in \(0, 1\]"),
    ],
)
def test_refuses_settings_without_meaning(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Spatial(**options)

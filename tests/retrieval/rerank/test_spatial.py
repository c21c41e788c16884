"""Matching, verification and re-ranking by local features."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from dolglab.contracts import LocalFeatures, Shortlist
from dolglab.errors import UserError
from dolglab.retrieval.rerank.geometry import inliers, mutual_matches
from dolglab.retrieval.rerank.spatial import Spatial


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def features(points: NDArray[np.floating], descriptors: NDArray[np.floating]) -> LocalFeatures:
    ones = np.ones(len(points), np.float32)
    return LocalFeatures(points.astype(np.float32), ones, ones, unit(descriptors).astype(np.float16), (500, 500))


def test_mutual_matches_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    a, b = unit(rng.standard_normal((40, 8))), unit(rng.standard_normal((30, 8)))
    cosines = a.astype(np.float64) @ b.T
    found = [(i, int(cosines[i].argmax())) for i in range(40)]
    expected = [(i, j) for i, j in found if cosines[:, j].argmax() == i]
    assert mutual_matches(a, b).tolist() == [list(pair) for pair in expected]
    sure = [(i, j) for i, j in expected if cosines[i, j] >= 0.7]
    assert mutual_matches(a, b, min_cosine=0.7).tolist() == [list(pair) for pair in sure]
    distance = np.sqrt(2 - 2 * cosines)
    clear = [(i, j) for i, j in expected if distance[i, j] <= 0.8 * np.sort(distance[i])[1]]
    assert 0 < len(clear) < len(expected)
    assert mutual_matches(a, b, ratio=0.8).tolist() == [list(pair) for pair in clear]


def test_empty_features_have_no_matches() -> None:
    some, none = unit(np.eye(3)), np.empty((0, 3), np.float16)
    assert mutual_matches(some, none).shape == (0, 2)
    assert mutual_matches(none, some).shape == (0, 2)
    assert mutual_matches(some, some[:1], ratio=0.5).tolist() == [[0, 0]]


@pytest.mark.parametrize("ratio", [1.0, 0.95])
def test_any_number_and_precision_of_descriptors_equals_a_loop(ratio: float) -> None:
    """More rows than are compared at a time, some of them duplicates, which match once."""
    rng = np.random.default_rng(4)
    code = unit(rng.standard_normal((1200, 16)))
    code[700] = code[3]
    a, b = code.astype(np.float16), unit(code[rng.permutation(1200)[:900]] + 0.1).astype(np.float16)
    cosines = a.astype(np.float32) @ b.astype(np.float32).T
    nearest, back = cosines.argmax(1), cosines.argmax(0)
    expected = [[i, int(j)] for i, j in enumerate(nearest) if back[j] == i]
    if ratio < 1:
        two = np.sort(np.sqrt(np.maximum(2 - 2 * cosines, 0)), 1)[:, :2]
        expected = [[i, j] for i, j in expected if two[i, 0] <= ratio * two[i, 1]]
    found = mutual_matches(a, b, ratio)
    assert len(expected) > 100
    # Another order of summation may change ties in the last bit.
    assert len(set(map(tuple, found.tolist())) ^ set(map(tuple, expected))) <= 2
    assert len(np.unique(found[:, 0])) == len(np.unique(found[:, 1])) == len(found)


@pytest.mark.parametrize("kind", ["affine", "homography"])
@pytest.mark.parametrize("wrong", [0.0, 0.5, 0.8])
def test_ransac_finds_the_matches_of_one_transformation(kind: str, wrong: float) -> None:
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
def test_degenerate_matches_have_no_inliers(kind: str) -> None:
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


def matched(transformation: NDArray[np.float64], a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Within 20 pixels in both directions, one match at a time."""
    inverse, found = np.linalg.inv(transformation), []
    for p, q in zip(np.c_[a, np.ones(len(a))], np.c_[b, np.ones(len(b))], strict=True):
        there, back = transformation @ p, inverse @ q
        found.append(max(np.hypot(*(there[:2] / there[2] - q[:2])), np.hypot(*(back[:2] / back[2] - p[:2]))) <= 20)
    return np.array(found, np.bool_)


@pytest.mark.parametrize("seed", range(5))
def test_ransac_finds_at_least_the_inliers_of_the_best_sample(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.uniform(0, 500, (16, 2))
    b = 1.3 * a + rng.normal(0, 6, (16, 2))
    b[:9] = rng.uniform(0, 500, (9, 2))
    best = 0
    for sample in itertools.combinations(range(16), 3):
        p, q = (np.c_[x[list(sample)], np.ones(3)].T for x in (a, b))
        transformation = q @ np.linalg.inv(p)
        stretch = np.linalg.svd(transformation[:2, :2], compute_uv=False)
        sensible = np.linalg.det(transformation) > 0 and stretch[0] <= 4 * stretch[1]
        if sensible and 1 / 25 <= stretch[0] * stretch[1] <= 25:
            best = max(best, int(matched(transformation, a, b).sum()))
    found, transformation = inliers(a, b)
    assert transformation is not None
    assert found.sum() >= best >= 7
    np.testing.assert_array_equal(found, matched(transformation, a, b))


def test_matches_to_a_single_spot_are_not_inliers() -> None:
    """A transformation to a single point brings every point to within the residual, in one direction."""
    rng = np.random.default_rng(3)
    wide, spot = rng.uniform(0, 1000, (60, 2)), 500 + rng.uniform(-12, 12, (60, 2))
    for a, b in ((wide, spot), (spot, wide)):
        assert inliers(a, b)[0].sum() <= 4


def test_a_homography_fits_a_facade_seen_at_an_angle() -> None:
    rng = np.random.default_rng(5)
    a = rng.uniform(-400, 400, (150, 2))
    # The right side is twice as far away as the left.
    true = np.array([[0.9, 0.05, 30.0], [0.1, 1.0, -20.0], [8e-4, 1e-4, 1.0]])
    images = np.c_[a, np.ones(150)] @ true.T
    b = images[:, :2] / images[:, 2:] + rng.normal(0, 1, (150, 2))
    b[:60] = rng.uniform(-400, 400, (60, 2))
    found, transformation = inliers(a, b, "homography", residual=6.0)
    assert transformation is not None
    assert found[60:].mean() > 0.97
    assert found[:60].mean() < 0.1
    np.testing.assert_allclose(transformation / transformation[2, 2], true, rtol=0.1, atol=1.0)
    assert found.sum() > 1.5 * inliers(a, b, "affine", residual=6.0)[0].sum()


def scene(rng: np.random.Generator, shared: int, others: int, code: NDArray[np.floating]) -> LocalFeatures:
    """A view with the first `shared` points of a landmark, slightly rotated, and other points."""
    base = np.random.default_rng(7).uniform(50, 450, (len(code), 2))[:shared]
    points = np.concatenate([base @ np.array([[0.98, -0.1], [0.1, 0.98]]).T + 5, rng.uniform(0, 500, (others, 2))])
    own = code[:shared] + 0.05 * rng.standard_normal((shared, code.shape[1]))
    return features(points, np.concatenate([own, rng.standard_normal((others, code.shape[1]))]))


def test_answers_are_sorted_by_inliers_and_ties_keep_their_order() -> None:
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
    assert spatial.config()["rerank"] == "spatial"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "similarity"}, r"rerank\.kind .*similarity"),
        ({"residual": 0.0}, "residual"),
        ({"depth": 0}, r"rerank\.depth"),
        ({"ratio": 1.5}, "ratio"),
    ],
)
def test_invalid_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Spatial(**options)

"""Diffusion compared with a loop over the graph and a dense solution."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dolglab.contracts import Shortlist
from dolglab.errors import UserError
from dolglab.retrieval.rerank.diffusion import Diffusion
from retrieval.rerank.shortlists import shortlist, unit


def ordered(descriptors: NDArray[np.float32], query: NDArray[np.float32]) -> Shortlist:
    """Answers by cosine."""
    return shortlist(descriptors[np.argsort(-descriptors @ query, kind="stable")], query)


def by_hand(
    descriptors: NDArray[np.float32], query: NDArray[np.float32], k: int, kq: int, alpha: float, gamma: float
) -> NDArray[np.float64]:
    """f from loops over all pairs and numpy's solver."""
    x, q = descriptors.astype(np.float64), query.astype(np.float64)
    count = len(x)
    cosines = x @ x.T

    def first(values: NDArray[np.float64], among: list[int], most: int) -> set[int]:
        return set(sorted(among, key=lambda i: (-values[i], i))[:most])

    near = [first(cosines[i], [j for j in range(count) if j != i], k) for i in range(count)]
    a = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if j in near[i] and i in near[j]:
                a[i, j] = max(cosines[i, j], 0) ** gamma
    degree = a.sum(1)
    s = np.zeros_like(a)
    for i in range(count):
        for j in range(count):
            if a[i, j] > 0:
                s[i, j] = a[i, j] / np.sqrt(degree[i] * degree[j])
    y = np.zeros(count)
    for i in first(x @ q, list(range(count)), kq):
        y[i] = max(x[i] @ q, 0) ** gamma
    return np.linalg.solve(np.eye(count) - alpha * s, y).astype(np.float64)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k", "kq", "alpha", "gamma"), [(5, 3, 0.99, 3.0), (59, 60, 0.9, 1.0), (2, 1, 0.5, 2.0)])
def test_equals_a_loop_and_a_dense_solver(seed: int, k: int, kq: int, alpha: float, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    landmarks = rng.standard_normal((6, 16))
    answers = ordered(unit(landmarks[rng.integers(0, 6, 60)] + 0.6 * rng.standard_normal((60, 16))), unit(landmarks[0]))
    diffusion = Diffusion(60, k, kq, alpha, gamma, tolerance=1e-12, iterations=1000)
    expected = by_hand(answers.descriptors, answers.query_descriptor, k, kq, alpha, gamma)
    found = diffusion.scores(answers.descriptors, answers.query_descriptor)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)
    order = Diffusion(60, k, kq, alpha, gamma)(answers)
    assert sorted(order.tolist()) == list(range(60))
    assert (np.diff(expected[order]) < 1e-5 * expected.max()).all()


def test_a_chain_is_followed_where_the_cosine_prefers_a_stranger() -> None:
    """Five views that turn away from the query, and an unrelated image that is more similar than the last two."""
    angles = np.radians([5, 25, 45, 65, 85])
    views = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    stranger = np.array([[0.6, 0.0, -0.8]])
    answers = ordered(unit(np.concatenate([views, stranger])), np.array([1, 0, 0], np.float32))
    assert answers.scores.argsort()[:2].tolist() == [5, 4]
    assert np.flatnonzero(answers.descriptors[:, 2]).tolist() == [3]
    order = Diffusion(neighbours=2, query_neighbours=1)(answers)
    assert order[-1] == 3
    assert set(order[:5].tolist()) == {0, 1, 2, 4, 5}


def test_unreached_images_keep_their_order() -> None:
    axes = np.eye(6, dtype=np.float32)
    descriptors = np.stack([axes[1], axes[0], axes[2], axes[2], axes[0], axes[3], np.zeros(6, np.float32)])
    assert Diffusion()(shortlist(descriptors, axes[0])).tolist() == [1, 4, 0, 2, 3, 5, 6]


@pytest.mark.parametrize("query", [[0, 0, 0], [-1, 0, 0]])
def test_a_query_without_neighbours_changes_nothing(query: list[float]) -> None:
    descriptors = unit(np.array([[1, 0, 0], [1, 1, 0], [1, 2, 0], [0, 0, 0.5]]))
    assert Diffusion()(shortlist(descriptors, np.array(query, np.float32))).tolist() == [0, 1, 2, 3]


def test_empty_and_single_shortlists_work() -> None:
    query = np.array([1, 0], np.float32)
    assert Diffusion()(shortlist(np.empty((0, 2), np.float32), query)).tolist() == []
    assert Diffusion()(shortlist(query[None], query)).tolist() == [0]


def test_underflowing_powers_are_not_edges() -> None:
    descriptors = unit(np.array([[1, 0, 0], [1e-5, 1, 0], [1e-5, 0, 1]]))
    query = np.array([1, 0, 0], np.float32)
    diffusion = Diffusion(gamma=100.0)
    assert diffusion.scores(descriptors, query).tolist() == [1, 0, 0]
    assert diffusion(shortlist(descriptors, query)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, r"rerank\.depth"),
        ({"iterations": 0}, "iterations"),
        ({"alpha": 1.0}, r"alpha=1\.0"),
        ({"gamma": 0.0}, r"gamma=0\.0"),
        ({"tolerance": 0.0}, r"tolerance=0\.0"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Diffusion(**settings)


def test_cards_describe_the_settings() -> None:
    assert Diffusion(depth=20).config() == {
        "rerank": "diffusion",
        "depth": 20,
        "neighbours": 50,
        "query_neighbours": 10,
        "alpha": 0.99,
        "gamma": 3.0,
    }

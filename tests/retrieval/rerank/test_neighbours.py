"""Refinement by neighbours compared with a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.retrieval.rerank.neighbours import Neighbours, refined
from retrieval.rerank.shortlists import shortlist, unit


def refined_by_hand(x: NDArray[np.float64], neighbours: int, beta: float) -> NDArray[np.float64]:
    rows = []
    for i, own in enumerate(x):
        total, weight = own.copy(), 1.0
        others = sorted((j for j in range(len(x)) if j != i), key=lambda j: (-(own @ x[j]), j))
        for j in others[:neighbours]:
            total += beta * max(own @ x[j], 0) * x[j]
            weight += beta * max(own @ x[j], 0)
        rows.append(total / weight)
    return np.stack(rows)


@pytest.mark.parametrize(("k", "neighbours", "beta"), [(50, 9, 0.15), (50, 1, 1.0), (5, 9, 0.15), (2, 1, 0.15)])
def test_equals_a_loop(k: int, neighbours: int, beta: float) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, query = unit(rng.standard_normal((k, 12)) + 0.3), unit(rng.standard_normal(12) + 0.3)
        expected = refined_by_hand(x.astype(np.float64), neighbours, beta)
        np.testing.assert_allclose(refined(x, neighbours, beta), expected, atol=1e-6)
        direct = expected @ query
        first = sorted(range(k), key=lambda i: -direct[i])[: neighbours + 1]
        expanded = np.array([max(expected[i][d] for i in first) for d in range(12)])
        scores = (direct + expected @ expanded) / 2
        order = Neighbours(k, neighbours, beta)(shortlist(x, query))
        assert sorted(order.tolist()) == list(range(k))
        assert (np.diff(scores[order]) < 1e-6).all()


def test_an_image_with_similar_answers_passes_an_isolated_one() -> None:
    """A single image is slightly nearer to the query than the views of a landmark, which are similar to each other."""
    rng = np.random.default_rng(0)
    query = np.eye(8)[0]
    views = unit(query + 0.9 * np.eye(8)[1] + 0.1 * rng.standard_normal((6, 8)))
    lone = unit(query + 0.8 * np.eye(8)[2])[None]
    answers = shortlist(np.concatenate([lone, views]), query.astype(np.float32))
    assert answers.scores.argmax() == 0
    assert Neighbours()(answers)[-1] == 0


def test_ties_keep_their_order() -> None:
    axes = np.eye(5, dtype=np.float32)
    descriptors = np.stack([axes[1], axes[2], axes[0], axes[3], np.zeros(5, np.float32)])
    query = axes[0]
    # The expanded query is 1 along the axis of every answer.
    assert Neighbours()(shortlist(descriptors, query)).tolist() == [2, 0, 1, 3, 4]


def test_empty_and_single_shortlists_work() -> None:
    query = np.array([1, 0], np.float32)
    reranker = Neighbours()
    assert reranker(shortlist(np.empty((0, 2), np.float32), query)).tolist() == []
    assert reranker(shortlist(query[None], query)).tolist() == [0]
    assert reranker(shortlist(np.zeros((3, 2), np.float32), np.zeros(2, np.float32))).tolist() == [0, 1, 2]


@pytest.mark.parametrize("settings", [{"depth": 0}, {"neighbours": 0}, {"beta": -0.1}, {"beta": float("nan")}])
def test_invalid_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"\b{next(iter(settings))}=-?\w+"):
        Neighbours(**settings)


def test_cards_describe_the_settings() -> None:
    assert Neighbours().config() == {"rerank": "neighbours", "depth": 400, "neighbours": 9, "beta": 0.15}

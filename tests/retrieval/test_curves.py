"""Interpolated precision compared with its plain definition."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_precision_recall_curve

from dolglab.measures import mean_precision_at_recalls, precision_at_recalls


def by_definition(ranks: list[int], positives: int) -> list[float]:
    """At each recall, the highest precision of any cut of the list that reaches it."""
    curve = []
    for step in range(101):
        reached = [found for found in range(1, len(ranks) + 1) if 100 * found >= step * positives]
        curve.append(max((found / (ranks[found - 1] + 1) for found in reached), default=0.0))
    return curve


@pytest.mark.parametrize("seed", range(8))
def test_curves_equal_the_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    found = int(generator.integers(1, 40))
    ranks = np.sort(generator.choice(200, found, replace=False))
    positives = found + int(generator.integers(0, 20))
    np.testing.assert_allclose(precision_at_recalls(ranks, positives), by_definition(ranks.tolist(), positives))


def test_curves_equal_another_library() -> None:
    generator = torch.Generator().manual_seed(9)
    truth = torch.rand(300, generator=generator) < 0.2
    scores = torch.rand(300, generator=generator)
    ranks = np.flatnonzero(truth[scores.argsort(descending=True)].numpy())
    precision, recall, _ = (part.double().numpy() for part in binary_precision_recall_curve(scores, truth.long()))
    expected = [precision[recall >= step / 100 - 1e-6].max() for step in range(1, 101)]
    # At recall 0 that library adds a precision of 1.
    np.testing.assert_allclose(precision_at_recalls(ranks, int(truth.sum()))[1:], expected, rtol=1e-6)


def test_with_a_hundred_positives_recall_is_their_number() -> None:
    ranks = np.arange(100) * 2
    curve = precision_at_recalls(ranks, 100)
    assert curve[7] == 7 / 13
    assert curve[100] == 100 / 199


def test_a_perfect_ranking_is_one_and_an_empty_one_zero() -> None:
    assert (precision_at_recalls(np.arange(4), 4) == 1).all()
    assert (precision_at_recalls(np.empty(0, np.int64), 3) == 0).all()
    half = precision_at_recalls(np.array([0]), 2)
    assert (half[:51] == 1).all()
    assert (half[51:] == 0).all()


def test_queries_without_positives_are_left_out_of_the_mean() -> None:
    ranks = [np.array([0, 3]), np.empty(0, np.int64), np.array([5])]
    expected = np.mean([by_definition([0, 3], 2), by_definition([5], 1)], axis=0)
    np.testing.assert_allclose(mean_precision_at_recalls(ranks, [2, 0, 1]), expected)
    assert np.isnan(precision_at_recalls(ranks[1], 0)).all()
    assert np.isnan(mean_precision_at_recalls(ranks[1:2], [0])).all()
    assert np.isnan(mean_precision_at_recalls([], [])).all()

"""Learning a codebook: a sample of features, PCA, k-means, and the number of words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dolglab.retrieval.asmk_codebook import automatic_words, kmeans, pca, project, sample


def test_words_are_chosen_by_the_number_of_features() -> None:
    assert [automatic_words(n) for n in (1, 79, 80, 160, 319, 320)] == [1, 1, 2, 4, 4, 8]
    assert automatic_words(40 * 65_536 - 1) == 32_768
    assert automatic_words(10**9) == 65_536


def test_pca_equals_singular_vectors() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((200, 12)) * np.arange(1, 13) + 5).astype(np.float32)
    mean, projection = pca(rows, 4)
    directions = np.linalg.svd(rows.astype(np.float64) - rows.mean(0, dtype=np.float64))[2][:4].T
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(np.abs((directions * projection).sum(0)), 1, atol=1e-5)
    assert (np.take_along_axis(projection, np.abs(projection).argmax(0)[None], 0) > 0).all()
    reduced = project(rows, mean, projection)
    expected = (rows - rows.mean(0)) @ projection
    np.testing.assert_allclose(reduced, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    assert not project(mean[None], mean, projection).any()


def test_kmeans_finds_separate_clusters() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 50)
    points = (np.eye(4, 8)[labels] * 10 + 0.1 * rng.standard_normal((200, 8))).astype(np.float32)
    means = np.stack([points[labels == label].mean(0) for label in range(4)])
    found = max((kmeans(points, 4, 10, seed) for seed in range(20)), key=lambda c: -_spread(points, c))
    np.testing.assert_allclose(found[found.argmax(1).argsort()], means, atol=1e-5)
    assert np.isfinite(kmeans(np.repeat(points[:3], 20, 0), 10, 5, 0)).all()


def _spread(points: NDArray, centroids: NDArray) -> float:
    return float(((points[:, None] - centroids) ** 2).sum(2).min(1).sum())


def test_sample_is_fair_and_bounded() -> None:
    rows = np.arange(20, dtype=np.float32)[:, None]
    stream = [rows[:3], rows[3:3], rows[3:11], rows[11:]]
    assert (sample(stream, 20, 0) == rows).all()
    assert (sample(stream, 3, 0) == sample(stream, 3, 0)).all()
    kept = np.concatenate([sample(stream, 5, seed) for seed in range(2000)]).ravel()
    assert len(kept) == 10_000
    shares = np.bincount(kept.astype(np.int64), minlength=20) / 2000
    np.testing.assert_allclose(shares, 0.25, atol=0.05)

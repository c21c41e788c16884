"""Neighbours in a shortlist compared with a stable sort."""

from __future__ import annotations

import numpy as np
import pytest

from dolglab.retrieval.rerank.neighbours import nearest


@pytest.mark.parametrize("count", [0, 1, 3, 10, 11, 12, 50])
@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_equals_a_stable_sort(count: int, levels: int) -> None:
    similarity = (np.random.default_rng(0).integers(0, levels, (12, 12)) / levels).astype(np.float32)
    marked = nearest(similarity, count)
    for image, row in enumerate(similarity):
        others = sorted((other for other in range(12) if other != image), key=lambda other: -row[other])
        assert np.flatnonzero(marked[image]).tolist() == sorted(others[:count])


def test_short_lists() -> None:
    assert nearest(np.zeros((0, 0), np.float32), 3).shape == (0, 0)
    assert nearest(np.ones((1, 1), np.float32), 3).tolist() == [[False]]
    assert nearest(np.ones((2, 2), np.float32), 3).tolist() == [[False, True], [True, False]]

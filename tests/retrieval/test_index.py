"""The flat index against a full stable sort."""

from __future__ import annotations

import numpy as np
import pytest

from src.errors import InputError
from src.retrieval.index import FlatIndex


def test_equals_a_stable_sort_of_the_full_product() -> None:
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((50, 8)).astype(np.float32)
    gallery[10:20] = gallery[0]
    queries = rng.standard_normal((7, 8)).astype(np.float32)
    index = FlatIndex()
    index.build(gallery)
    scores, positions = index.search(queries, 50)
    product = queries @ gallery.T
    expected = np.argsort(-np.round(product, 4), axis=1, kind="stable")
    assert (positions == expected).all()
    np.testing.assert_allclose(scores, np.take_along_axis(product, expected, 1), atol=1e-5)


def test_refuses_what_is_not_finite() -> None:
    with pytest.raises(InputError, match="not finite"):
        FlatIndex().build(np.array([[1.0, np.inf]], np.float32))

"""A small benchmark, and descriptors of its images that have any length."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dolglab.contracts import Benchmark
from extraction.external_files import DIM, FURTHER, GALLERY, IMAGES, QUERIES, benchmark_of


@pytest.fixture
def benchmark() -> Benchmark:
    return benchmark_of(GALLERY + FURTHER, QUERIES)


@pytest.fixture
def raw() -> NDArray[np.float64]:
    """Descriptors of any length, one row per image."""
    return np.random.default_rng(0).normal(size=(len(IMAGES), DIM)) * 7

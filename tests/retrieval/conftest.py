"""A small gallery with queries, and an index of each kind."""

from __future__ import annotations

import numpy as np
import pytest

from dolglab.retrieval.index import Index
from retrieval.indexes import DIM, KINDS, Table, rows


@pytest.fixture(scope="session")
def data() -> tuple[Table, Table]:
    """1,500 descriptors around 40 centres and 40 queries near some of them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, DIM))
    gallery = centres[rng.integers(0, 40, 1500)] + 0.6 * rng.standard_normal((1500, DIM))
    queries = gallery[rng.integers(0, 1500, 40)] + 0.4 * rng.standard_normal((40, DIM))
    return rows(gallery), rows(queries)


@pytest.fixture(scope="session")
def built(data: tuple[Table, Table]) -> dict[str, Index]:
    indexes = {kind: make() for kind, (make, _) in KINDS.items()}
    for index in indexes.values():
        index.build(data[0])
    return indexes

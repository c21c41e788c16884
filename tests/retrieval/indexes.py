"""Every kind of index with settings for a small gallery."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dolglab.retrieval.faiss_indexes import HNSWIndex, IVFFlatIndex, IVFPQIndex, OPQIndex
from dolglab.retrieval.index import FlatIndex, Index
from dolglab.retrieval.rabitq import RaBitQIndex

Table = NDArray[np.float32]
DIM = 32

# Each kind with settings for the small gallery, and the minimum recall@10.
KINDS: dict[str, tuple[Callable[[], Index], float]] = {
    "flat": (FlatIndex, 1.0),
    "ivf_flat": (lambda: IVFFlatIndex(lists=30, probes=8), 0.98),
    "ivf_pq": (lambda: IVFPQIndex(lists=30, probes=8, code_bytes=12, bits=6), 0.75),
    "hnsw": (lambda: HNSWIndex(m=16, ef_construction=40, ef_search=64), 0.99),
    "rabitq": (lambda: RaBitQIndex(shortlist=200), 0.99),
    "opq_pq": (lambda: OPQIndex(code_bytes=12, bits=6, iterations=3), 0.7),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def rows(table: NDArray[np.floating]) -> Table:
    return (table / np.linalg.norm(table, axis=1, keepdims=True)).astype(np.float32)


def stable_sort(gallery: Table, queries: Table) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """All cosines, and the positions by descending cosine."""
    cosines = queries.astype(np.float64) @ gallery.T.astype(np.float64)
    return cosines, np.argsort(-cosines, axis=1, kind="stable")

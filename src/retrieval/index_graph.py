"""A graph of neighbours, walked from coarse to fine towards the query (HNSW: Malkov and Yashunin, 2020)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.retrieval.index import Index, check_whole


class HNSWIndex(Index):
    """A hierarchical navigable small-world graph over whole descriptors: the scores are exact, answers can be missing.

    Args:
        m: links of each descriptor and level; twice as many on the lowest.
        ef_construction: candidates kept while a descriptor is linked; more make a better graph, more slowly.
        ef_search: candidates kept while a query is answered; never fewer than the answers asked for.
        depth: how many answers an evaluation asks for.

    The graph is made by one thread: with more, it would be another each time.

    Raises:
        InputError: a setting below 1 (m below 2).
    """

    kind = "hnsw"

    def __init__(self, m: int = 32, ef_construction: int = 200, ef_search: int = 128, depth: int = 1000) -> None:
        super().__init__()
        check_whole(2, m=m)
        check_whole(1, ef_construction=ef_construction, ef_search=ef_search, depth=depth)
        self.m = m
        self.ef_construction = ef_construction
        self.ef_search = ef_search
        self.depth = depth

    @property
    def settings(self) -> dict[str, int | None]:
        """What was asked of `build`."""
        return {name: getattr(self, name) for name in ("m", "ef_construction")}

    def _make(self, descriptors: NDArray[np.float32]) -> Any:
        import faiss

        index = faiss.IndexHNSWFlat(descriptors.shape[1], self.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.ef_construction
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            index.add(np.ascontiguousarray(descriptors, np.float32))
        finally:
            faiss.omp_set_num_threads(threads)
        return index

    def _bytes(self, index: Any) -> int:
        graph = index.hnsw
        links = 4 * graph.neighbors.size() + 8 * graph.offsets.size() + 4 * graph.levels.size()
        return 4 * index.d * index.ntotal + links

    def _ask(
        self, index: Any, queries: NDArray[np.float32], k: int, selection: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        index.hnsw.efSearch = self.ef_search
        return super()._ask(index, queries, k, selection)

    def _parameters(self, index: Any, selection: Any) -> Any:
        import faiss

        kind: Any = faiss.SearchParametersHNSW  # pyright: ignore[reportAttributeAccessIssue]
        return kind(sel=selection, efSearch=self.ef_search)

"""The approximate indexes: lists around centroids, codes of descriptors, and a graph of neighbours, all by faiss.

Inverted files and product quantisation: Jegou, Douze and Schmid (TPAMI 2011); rotations for it (OPQ): Ge et al. (CVPR
2013); the graph (HNSW): Malkov and Yashunin (TPAMI 2020).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.retrieval.index import Index, check_whole

# Bits of each part of a code. Some of faiss's tables are for multiples of 8 centroids, so 1 and 2 bits cannot be
# searched; beyond 12, a part has more centroids than a training sample should be asked for.
BITS = range(4, 13)
# Of a number of lists that is found automatically, each has so many training rows at least: faiss's own measure.
ROWS_PER_LIST = 39


class InvertedIndex(Index):
    """An index whose gallery is parted into lists by k-means.

    Args:
        lists: how many; None for the square root of the gallery's size, fewer where the training sample is small.
        probes: lists looked into for each query; at least as many as there are lists look into all.
        training_sample: descriptors drawn for training.
        iterations: of k-means.
        seed: of the drawing and of k-means.
        depth: how many answers an evaluation asks for.

    Raises:
        UserError: a setting below 1 (a seed below 0).
    """

    build_settings = ("lists", "training_sample", "iterations", "seed")

    def __init__(
        self, lists: int | None, probes: int, training_sample: int, iterations: int, seed: int, depth: int
    ) -> None:
        super().__init__()
        check_whole(1, probes=probes, training_sample=training_sample, iterations=iterations, depth=depth)
        check_whole(1, lists=1 if lists is None else lists)
        check_whole(0, seed=seed)
        self.lists = lists
        self.probes = probes
        self.training_sample = training_sample
        self.iterations = iterations
        self.seed = seed
        self.depth = depth

    def _build(self, descriptors: NDArray[np.float32], rows_at_once: int) -> Any:
        rows = _training_rows(descriptors, self.training_sample, self.seed)
        index = self._untrained(descriptors.shape[1], self._lists(len(descriptors), len(rows)), len(rows))
        _set_clustering(index.cp, self.iterations, self.seed, len(rows))
        index.train(rows)
        _add_in_parts(index, descriptors, rows_at_once)
        return index

    def _lists(self, images: int, rows: int) -> int:
        if self.lists is None:
            return max(1, min(round(math.sqrt(images)), rows // ROWS_PER_LIST))
        if self.lists > rows:
            raise UserError(
                f"{self.kind}: {self.lists} lists cannot be trained on {rows} descriptors: lower index.lists, or give "
                "none (null) for a number that fits"
            )
        return self.lists

    @abstractmethod
    def _untrained(self, dim: int, lists: int, rows: int) -> Any:
        """The faiss index before training on so many rows."""

    def _memory_bytes(self, index: Any) -> int:
        # Beside its code each entry has its position, 8 bytes.
        return (index.code_size + 8) * index.ntotal + 4 * index.d * index.nlist

    def _search(
        self, index: Any, queries: NDArray[np.float32], k: int, selector: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        index.nprobe = min(self.probes, index.nlist)
        return super()._search(index, queries, k, selector)

    def _search_parameters(self, index: Any, selector: Any) -> Any:
        import faiss

        kind: Any = faiss.SearchParametersIVF
        return kind(sel=selector, nprobe=index.nprobe)


class IVFFlatIndex(InvertedIndex):
    """Inverted file over whole descriptors: exact in the lists that it looks into. For arguments see InvertedIndex."""

    kind = "ivf_flat"

    def __init__(
        self,
        lists: int | None = None,
        probes: int = 32,
        training_sample: int = 100_000,
        iterations: int = 10,
        seed: int = 0,
        depth: int = 1000,
    ) -> None:
        super().__init__(lists, probes, training_sample, iterations, seed, depth)

    def _untrained(self, dim: int, lists: int, rows: int) -> Any:
        import faiss

        return faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)


class IVFPQIndex(InvertedIndex):
    """Inverted file over codes of what a descriptor differs by from its list's centroid.

    Args:
        code_bytes: bytes of a code.
        bits: bits of each part of a code; there are 8 * code_bytes / bits parts, which must divide the descriptor.
        lists, probes, training_sample, iterations, seed, depth: as for `InvertedIndex`.

    Raises:
        UserError: a setting below 1 (a seed below 0), or bits out of 4 to 12.
    """

    kind = "ivf_pq"
    build_settings = (*InvertedIndex.build_settings, "code_bytes", "bits")

    def __init__(
        self,
        lists: int | None = None,
        probes: int = 32,
        code_bytes: int = 64,
        bits: int = 8,
        training_sample: int = 100_000,
        iterations: int = 10,
        seed: int = 0,
        depth: int = 1000,
    ) -> None:
        super().__init__(lists, probes, training_sample, iterations, seed, depth)
        _check_code(code_bytes, bits)
        self.code_bytes = code_bytes
        self.bits = bits

    def _untrained(self, dim: int, lists: int, rows: int) -> Any:
        import faiss

        parts = _code_parts(dim, self.code_bytes, self.bits, rows, self.kind)
        coarse = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFPQ(coarse, dim, lists, parts, self.bits, faiss.METRIC_INNER_PRODUCT)
        _set_clustering(index.pq.cp, self.iterations, self.seed, rows)
        return index

    def _memory_bytes(self, index: Any) -> int:
        return super()._memory_bytes(index) + 4 * index.d * index.pq.ksub


class OPQIndex(Index):
    """Codes of rotated descriptors; the rotation spreads what they differ by evenly over the parts of a code.

    Args:
        code_bytes: bytes of a code.
        bits: bits of each part of a code; there are 8 * code_bytes / bits parts, which must divide the descriptor.
        training_sample: descriptors drawn for training.
        iterations: of the rotation, each with 4 of k-means (the first with 40), and of the last k-means.
        seed: of the drawing and of k-means.
        depth: how many answers an evaluation asks for.

    Raises:
        UserError: a setting below 1 (a seed below 0), or bits out of 4 to 12.
    """

    kind = "opq_pq"
    build_settings = ("code_bytes", "bits", "training_sample", "iterations", "seed")

    def __init__(
        self,
        code_bytes: int = 64,
        bits: int = 8,
        training_sample: int = 32_768,
        iterations: int = 20,
        seed: int = 0,
        depth: int = 1000,
    ) -> None:
        super().__init__()
        _check_code(code_bytes, bits)
        check_whole(1, training_sample=training_sample, iterations=iterations, depth=depth)
        check_whole(0, seed=seed)
        self.code_bytes = code_bytes
        self.bits = bits
        self.training_sample = training_sample
        self.iterations = iterations
        self.seed = seed
        self.depth = depth

    def _build(self, descriptors: NDArray[np.float32], rows_at_once: int) -> Any:
        import faiss

        dim = descriptors.shape[1]
        rows = _training_rows(descriptors, self.training_sample, self.seed)
        parts = _code_parts(dim, self.code_bytes, self.bits, len(rows), self.kind)
        # faiss writes beyond its memory here, and the process ends (its issue 2637).
        if len(rows) < dim:
            raise UserError(
                f"{self.kind}: a rotation of {dim} values is learned on at least as many descriptors, here are "
                f"{len(rows)}: use index=flat, or raise index.training_sample"
            )
        codes = faiss.IndexPQ(dim, parts, self.bits, faiss.METRIC_INNER_PRODUCT)
        rotation = faiss.OPQMatrix(dim, parts)
        rotation.niter = self.iterations
        rotation.max_train_points = len(rows)
        # Its own code book would have 8 bits a part, and warn of few rows.
        rotation.pq = book = faiss.ProductQuantizer(dim, parts, self.bits)
        for quantizer in (codes.pq, book):
            _set_clustering(quantizer.cp, self.iterations, self.seed, len(rows))
        index = faiss.IndexPreTransform(rotation, codes)
        index.train(rows)
        rotation.pq = None
        _add_in_parts(index, descriptors, rows_at_once)
        return index

    def _memory_bytes(self, index: Any) -> int:
        import faiss

        codes: Any = faiss.downcast_index(index.index)
        return codes.code_size * index.ntotal + 4 * index.d * (index.d + codes.pq.ksub)


class HNSWIndex(Index):
    """A hierarchical navigable small-world graph over whole descriptors: the scores are exact, answers can be missing.

    Args:
        m: links of each descriptor and level; twice as many on the lowest.
        ef_construction: candidates kept while a descriptor is linked; more make a better graph, more slowly.
        ef_search: candidates kept while a query is answered; never fewer than the answers asked for.
        depth: how many answers an evaluation asks for.

    The graph is made by one thread: with more, it would be another each time.

    Raises:
        UserError: a setting below 1 (m below 2).
    """

    kind = "hnsw"
    build_settings = ("m", "ef_construction")

    def __init__(self, m: int = 32, ef_construction: int = 200, ef_search: int = 128, depth: int = 1000) -> None:
        super().__init__()
        check_whole(2, m=m)
        check_whole(1, ef_construction=ef_construction, ef_search=ef_search, depth=depth)
        self.m = m
        self.ef_construction = ef_construction
        self.ef_search = ef_search
        self.depth = depth

    def _build(self, descriptors: NDArray[np.float32], rows_at_once: int) -> Any:
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

    def _memory_bytes(self, index: Any) -> int:
        graph = index.hnsw
        links = 4 * graph.neighbors.size() + 8 * graph.offsets.size() + 4 * graph.levels.size()
        return 4 * index.d * index.ntotal + links

    def _search(
        self, index: Any, queries: NDArray[np.float32], k: int, selector: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        index.hnsw.efSearch = self.ef_search
        return super()._search(index, queries, k, selector)

    def _search_parameters(self, index: Any, selector: Any) -> Any:
        import faiss

        kind: Any = faiss.SearchParametersHNSW  # pyright: ignore[reportAttributeAccessIssue]
        return kind(sel=selector, efSearch=self.ef_search)


def _training_rows(descriptors: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    """`count` of the descriptors, drawn without repetition and in gallery order; all where there are no more."""
    if count >= len(descriptors):
        return np.ascontiguousarray(descriptors, np.float32)
    drawn = np.random.default_rng(seed).choice(len(descriptors), count, replace=False)
    return np.ascontiguousarray(descriptors[np.sort(drawn)], np.float32)


def _set_clustering(parameters: Any, iterations: int, seed: int, rows: int) -> None:
    """Have faiss's k-means use every row, for so many iterations, and print nothing about how many there are."""
    parameters.niter = iterations
    parameters.seed = seed
    parameters.min_points_per_centroid = 1
    parameters.max_points_per_centroid = max(1, rows)


def _check_code(code_bytes: int, bits: int) -> None:
    """Raise UserError for codes that cannot be."""
    check_whole(1, code_bytes=code_bytes)
    if bits not in BITS:
        raise UserError(f"index.bits must lie in {BITS[0]} to {BITS[-1]}, not {bits}")


def _code_parts(dim: int, code_bytes: int, bits: int, rows: int, kind: str) -> int:
    """Into how many parts product quantisation cuts a descriptor, each part's code having so many bits.

    Raises UserError where the parts do not divide the descriptor, or the rows are fewer than the centroids of a part.
    """
    parts, rest = divmod(8 * code_bytes, bits)
    if rest or dim % parts:
        raise UserError(
            f"{kind}: codes of {code_bytes} bytes, {bits} bits a part, do not cut descriptors of {dim} values evenly: "
            f"choose index.code_bytes so that 8 * code_bytes / bits divides {dim}"
        )
    if rows < 2**bits:
        raise UserError(
            f"{kind}: codes of {bits} bits a part are trained on at least {2**bits} descriptors, here are {rows}: "
            "use index=flat, or lower index.bits"
        )
    return parts


def _add_in_parts(index: Any, descriptors: NDArray[np.float32], rows_at_once: int) -> None:
    """Add a gallery to a trained index without a copy of the whole."""
    for start in range(0, len(descriptors), rows_at_once):
        index.add(np.ascontiguousarray(descriptors[start : start + rows_at_once], np.float32))

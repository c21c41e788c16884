"""Approximate indexes with faiss: lists around centroids, codes of descriptors, and a graph of neighbours.

Inverted files and product quantisation: Jegou, Douze and Schmid (TPAMI 2011); rotations for it (OPQ): Ge et al. (CVPR
2013); the graph (HNSW): Malkov and Yashunin (TPAMI 2020).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from dolglab.contracts import FloatArray
from dolglab.errors import UserError
from dolglab.retrieval.index import Index

# Bits of each part of a code. Some of faiss's tables need multiples of 8 centroids, so 1 and 2 bits cannot be searched;
# beyond 12, a part has too many centroids for a training sample.
BITS = range(4, 13)
# Least training rows per list for an automatic number of lists: faiss's own recommendation.
ROWS_PER_LIST = 39


class TrainedIndex(Index):
    """An index that is trained on a sample of the gallery before all of it is added.

    Attributes:
        training_sample: number of descriptors sampled for training.
        iterations: of k-means.
        seed: of sampling and k-means.
        depth: number of answers that an evaluation requests.

    Raises UserError for a setting below 1 (a seed below 0).
    """

    training_sample: int
    iterations: int
    seed: int

    def __post_init__(self) -> None:
        self._check_whole(1, "training_sample", "iterations", "depth")
        self._check_whole(0, "seed")

    def _training_rows(self, descriptors: FloatArray) -> FloatArray:
        """The sample, without replacement and in gallery order; all descriptors if there are no more."""
        if self.training_sample < len(descriptors):
            drawn = np.random.default_rng(self.seed).choice(len(descriptors), self.training_sample, replace=False)
            descriptors = descriptors[np.sort(drawn)]
        return np.ascontiguousarray(descriptors, np.float32)

    def _set_clustering(self, parameters: Any, rows: int) -> None:
        """Let faiss's k-means use every row, with the iterations and the seed, and without warnings about few rows."""
        parameters.niter = self.iterations
        parameters.seed = self.seed
        parameters.min_points_per_centroid = 1
        parameters.max_points_per_centroid = max(1, rows)

    def _train(self, index: Any, rows: FloatArray, descriptors: FloatArray, rows_at_once: int) -> Any:
        """Train the index, and add the gallery in parts."""
        index.train(rows)
        for start in range(0, len(descriptors), rows_at_once):
            index.add(np.ascontiguousarray(descriptors[start : start + rows_at_once], np.float32))
        return index


class CodedIndex(TrainedIndex):
    """An index with a code of each descriptor.

    Attributes:
        code_bytes: bytes per code.
        bits: bits per part of a code, 4 to 12. The number of parts, 8 * code_bytes / bits, must divide the length of
            the descriptor.
    """

    code_bytes: int
    bits: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_whole(1, "code_bytes")
        if self.bits not in BITS:
            raise UserError(f"index.bits must be from {BITS[0]} to {BITS[-1]}, not {self.bits}")

    def _code_parts(self, dim: int, rows: int) -> int:
        """The number of parts into which product quantisation divides a descriptor.

        Raises UserError if they do not divide it, or if there are fewer rows than centroids per part.
        """
        parts, rest = divmod(8 * self.code_bytes, self.bits)
        if rest or dim % parts:
            raise UserError(
                f"{self.kind}: codes of {self.code_bytes} bytes with {self.bits} bits per part do not divide "
                f"{dim} values evenly: choose index.code_bytes so that 8 * code_bytes / bits divides {dim}"
            )
        if rows < 2**self.bits:
            raise UserError(
                f"{self.kind}: codes with {self.bits} bits per part need at least {2**self.bits} training descriptors, "
                f"not {rows}: use index=flat, or reduce index.bits"
            )
        return parts


@dataclass(eq=False)
class InvertedIndex(TrainedIndex):
    """An index whose gallery is divided into lists by k-means.

    Args:
        lists: number of lists; None for the square root of the gallery's size, or fewer for a small training sample.
        probes: number of lists searched per query.

    The other arguments are those of `TrainedIndex`.
    """

    build_settings = ("lists", "training_sample", "iterations", "seed")

    lists: int | None = None
    probes: int = 32
    training_sample: int = 100_000
    iterations: int = 10
    seed: int = 0
    depth: int | None = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_whole(1, "probes", *([] if self.lists is None else ["lists"]))

    def _build(self, descriptors: FloatArray, rows_at_once: int) -> Any:
        rows = self._training_rows(descriptors)
        index = self._untrained(descriptors.shape[1], self._lists(len(descriptors), len(rows)), len(rows))
        self._set_clustering(index.cp, len(rows))
        return self._train(index, rows, descriptors, rows_at_once)

    def _lists(self, images: int, rows: int) -> int:
        if self.lists is None:
            return max(1, min(round(math.sqrt(images)), rows // ROWS_PER_LIST))
        if self.lists > rows:
            raise UserError(
                f"{self.kind}: {self.lists} lists cannot be trained on {rows} descriptors: reduce index.lists, or use "
                "null for an automatic number"
            )
        return self.lists

    @abstractmethod
    def _untrained(self, dim: int, lists: int, rows: int) -> Any:
        """The untrained faiss index."""

    def _memory_bytes(self, index: Any) -> int:
        # Each entry has its code and its position, 8 bytes.
        return (index.code_size + 8) * index.ntotal + 4 * index.d * index.nlist

    def _search_parameters(self, index: Any, selector: Any) -> Any:
        import faiss

        kind: Any = faiss.SearchParametersIVF
        return kind(sel=selector, nprobe=min(self.probes, index.nlist))


class IVFFlatIndex(InvertedIndex):
    """Inverted file over whole descriptors: exact in the lists that are searched. For arguments see InvertedIndex."""

    kind = "ivf_flat"
    faiss_class = "IndexIVFFlat"

    def _untrained(self, dim: int, lists: int, rows: int) -> Any:
        import faiss

        return faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)


@dataclass(eq=False)
class IVFPQIndex(InvertedIndex, CodedIndex):
    """Inverted file over codes of the residual between a descriptor and the centroid of its list.

    The arguments are those of `InvertedIndex` and `CodedIndex`.
    """

    kind = "ivf_pq"
    faiss_class = "IndexIVFPQ"
    build_settings = (*InvertedIndex.build_settings, "code_bytes", "bits")

    code_bytes: int = 64
    bits: int = 8

    def _untrained(self, dim: int, lists: int, rows: int) -> Any:
        import faiss

        parts = self._code_parts(dim, rows)
        coarse = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFPQ(coarse, dim, lists, parts, self.bits, faiss.METRIC_INNER_PRODUCT)
        self._set_clustering(index.pq.cp, rows)
        return index

    def _memory_bytes(self, index: Any) -> int:
        return super()._memory_bytes(index) + 4 * index.d * index.pq.ksub


@dataclass(eq=False)
class OPQIndex(CodedIndex):
    """Codes of rotated descriptors; the rotation distributes their variance evenly over the parts of a code.

    The arguments are those of `CodedIndex`. `iterations` is the number for the rotation, each with 4 of k-means (the
    first with 40), and for the final k-means.
    """

    kind = "opq_pq"
    faiss_class = "IndexPreTransform"
    build_settings = ("code_bytes", "bits", "training_sample", "iterations", "seed")

    code_bytes: int = 64
    bits: int = 8
    training_sample: int = 32_768
    iterations: int = 20
    seed: int = 0
    depth: int | None = 1000

    def _build(self, descriptors: FloatArray, rows_at_once: int) -> Any:
        import faiss

        dim = descriptors.shape[1]
        rows = self._training_rows(descriptors)
        parts = self._code_parts(dim, len(rows))
        # faiss would write out of bounds here and crash (its issue 2637).
        if len(rows) < dim:
            raise UserError(
                f"{self.kind}: a rotation of {dim} values needs at least as many training descriptors, not "
                f"{len(rows)}: use index=flat, or increase index.training_sample"
            )
        codes = faiss.IndexPQ(dim, parts, self.bits, faiss.METRIC_INNER_PRODUCT)
        rotation = faiss.OPQMatrix(dim, parts)
        rotation.niter = self.iterations
        rotation.max_train_points = len(rows)
        # The default code book would have 8 bits per part, and warn about few rows.
        rotation.pq = book = faiss.ProductQuantizer(dim, parts, self.bits)
        for quantizer in (codes.pq, book):
            self._set_clustering(quantizer.cp, len(rows))
        index = self._train(faiss.IndexPreTransform(rotation, codes), rows, descriptors, rows_at_once)
        rotation.pq = None
        return index

    def _search_parameters(self, index: Any, selector: Any) -> Any:
        self._check_all(selector)

    def _memory_bytes(self, index: Any) -> int:
        import faiss

        codes: Any = faiss.downcast_index(index.index)
        return codes.code_size * index.ntotal + 4 * index.d * (index.d + codes.pq.ksub)


@dataclass(eq=False)
class HNSWIndex(Index):
    """A hierarchical navigable small-world graph over whole descriptors: exact scores, but answers can be missing.

    Args:
        m: links per descriptor and level; twice as many on the lowest level.
        ef_construction: candidates while linking a descriptor; more make a better graph, but more slowly.
        ef_search: candidates during a search; never fewer than the requested answers.
        depth: number of answers that an evaluation requests.

    The graph is built by one thread, since it would not be reproducible with several.

    Raises UserError for a setting below 1 (m below 2).
    """

    kind = "hnsw"
    faiss_class = "IndexHNSWFlat"
    build_settings = ("m", "ef_construction")

    m: int = 32
    ef_construction: int = 200
    ef_search: int = 128
    depth: int | None = 1000

    def __post_init__(self) -> None:
        self._check_whole(2, "m")
        self._check_whole(1, "ef_construction", "ef_search", "depth")

    def _build(self, descriptors: FloatArray, rows_at_once: int) -> Any:
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

    def _search_parameters(self, index: Any, selector: Any) -> Any:
        import faiss

        kind: Any = faiss.SearchParametersHNSW  # pyright: ignore[reportAttributeAccessIssue]
        return kind(sel=selector, efSearch=self.ef_search)

"""Inverted files: a search looks only into the lists whose centroids are nearest to the query (Jegou et al., 2011)."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.retrieval.index import Index, check_whole
from src.retrieval.index_training import add_in_parts, check_code, code_parts, set_clustering, training_rows

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
        InputError: a setting below 1 (a seed below 0).
    """

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

    @property
    def settings(self) -> dict[str, int | None]:
        """What was asked of `build`."""
        names = ("lists", "training_sample", "iterations", "seed")
        return {name: getattr(self, name) for name in names}

    def _make(self, descriptors: NDArray[np.float32]) -> Any:
        rows = training_rows(descriptors, self.training_sample, self.seed)
        index = self._empty(descriptors.shape[1], self._lists(len(descriptors), len(rows)), len(rows))
        set_clustering(index.cp, self.iterations, self.seed, len(rows))
        index.train(rows)
        add_in_parts(index, descriptors)
        return index

    def _lists(self, images: int, rows: int) -> int:
        if self.lists is None:
            return max(1, min(round(math.sqrt(images)), rows // ROWS_PER_LIST))
        if self.lists > rows:
            raise InputError(
                f"{self.kind}: {self.lists} lists cannot be trained on {rows} descriptors: lower index.lists, or give "
                "none (null) for a number that fits"
            )
        return self.lists

    @abstractmethod
    def _empty(self, dim: int, lists: int, rows: int) -> Any:
        """The faiss index before training on so many rows."""

    def _bytes(self, index: Any) -> int:
        # Beside its code each entry has its position, 8 bytes.
        return (index.code_size + 8) * index.ntotal + 4 * index.d * index.nlist

    def _ask(
        self, index: Any, queries: NDArray[np.float32], k: int, selection: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        index.nprobe = min(self.probes, index.nlist)
        return super()._ask(index, queries, k, selection)

    def _parameters(self, index: Any, selection: Any) -> Any:
        import faiss

        kind: Any = faiss.SearchParametersIVF
        return kind(sel=selection, nprobe=index.nprobe)


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

    def _empty(self, dim: int, lists: int, rows: int) -> Any:
        import faiss

        return faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)


class IVFPQIndex(InvertedIndex):
    """Inverted file over codes of what a descriptor differs by from its list's centroid.

    Args:
        code_bytes: bytes of a code.
        bits: bits of each part of a code; there are 8 * code_bytes / bits parts, which must divide the descriptor.
        lists, probes, training_sample, iterations, seed, depth: as for `InvertedIndex`.

    Raises:
        InputError: a setting below 1 (a seed below 0), or bits out of 4 to 12.
    """

    kind = "ivf_pq"

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
        check_code(code_bytes, bits)
        self.code_bytes = code_bytes
        self.bits = bits

    @property
    def settings(self) -> dict[str, int | None]:
        """What was asked of `build`."""
        return {**super().settings, "code_bytes": self.code_bytes, "bits": self.bits}

    def _empty(self, dim: int, lists: int, rows: int) -> Any:
        import faiss

        parts = code_parts(dim, self.code_bytes, self.bits, rows, self.kind)
        coarse = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFPQ(coarse, dim, lists, parts, self.bits, faiss.METRIC_INNER_PRODUCT)
        set_clustering(index.pq.cp, self.iterations, self.seed, rows)
        return index

    def _bytes(self, index: Any) -> int:
        return super()._bytes(index) + 4 * index.d * index.pq.ksub

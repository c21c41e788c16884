"""One-bit codes of descriptors that select candidates (RaBitQ: Gao and Long, SIGMOD 2024, by faiss), and exact cosines.

A descriptor is rotated randomly; its code keeps the sign of each value's difference from the gallery's mean, and two
numbers: 72 bytes for 512 values, without training. A code estimates a cosine with an error of a few hundredths, which
is enough to select candidates. faiss leaves the rotation to its users; without it, estimates for descriptors that vary
in few directions, such as those after PCA, are several times as inaccurate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dolglab.contracts import FloatArray, IntArray
from dolglab.retrieval.index import Index

# Bits of each value of a query, if codes are not packed for fast scan.
QUERY_BITS = 4
# Seed of the rotation, which is kept with the codes.
SEED = 0
QUANTIZER_SIZES = ("d", "code_size", "nb_bits")


def shortlist_size(k: int, minimum: int = 1000, factor: int = 20) -> int:
    """The number of candidates that codes select for `k` answers.

    >>> shortlist_size(10), shortlist_size(100)
    (1000, 2000)
    """
    return max(minimum, factor * k)


class RaBitQCodes(Index):
    """The codes alone, used to search a selection; scores are estimates, and ties are in any order."""

    kind = "rabitq_codes"
    faiss_class = "IndexPreTransform"
    codes_class: ClassVar[str] = "IndexRaBitQ"
    _sizes: ClassVar[tuple[str, ...]] = ("code_size",)

    def _build(self, descriptors: FloatArray, rows_at_once: int) -> Any:
        import faiss

        dim = descriptors.shape[1]
        rotation, codes = faiss.RandomRotationMatrix(dim, dim), faiss.IndexRaBitQ(dim, faiss.METRIC_INNER_PRODUCT)
        rotation.init(SEED)
        # faiss calls computing the mean training; the mean of rotated descriptors is the rotated mean.
        mean = descriptors.mean(0, dtype=np.float64, keepdims=True).astype(np.float32)
        codes.train(rotation.apply(mean))
        index = faiss.IndexPreTransform(rotation, codes)
        for start in range(0, len(descriptors), rows_at_once):
            index.add(np.ascontiguousarray(descriptors[start : start + rows_at_once], np.float32))
        return index

    def _memory_bytes(self, index: Any) -> int:
        return _parts(index)[1].code_size * index.ntotal + 4 * index.d * (index.d + 1)

    def _is_whole(self, index: Any) -> bool:
        import faiss

        if index.chain.size() != 1 or type(_parts(index)[1]).__name__ != self.codes_class:
            return False
        rotation, codes = _parts(index)
        # An index of the same kind made by faiss; codes are stored in complete blocks.
        made = getattr(faiss, self.codes_class)(index.d, faiss.METRIC_INNER_PRODUCT)
        block = getattr(made, "bbs", 1)
        length = -(-index.ntotal // block) * block * made.code_size
        same = all(getattr(codes, name) == getattr(made, name) for name in ("d", "metric_type", *self._sizes))
        quantizers = codes.rabitq, made.rabitq
        same &= all(len({getattr(each, name) for each in quantizers}) == 1 for name in QUANTIZER_SIZES)
        same &= isinstance(rotation, faiss.LinearTransform) and rotation.d_in == rotation.d_out == index.d
        full = rotation.A.size() == index.d**2 and codes.center.size() == index.d and codes.codes.size() == length
        return bool(same and full and not rotation.have_bias and codes.ntotal == index.ntotal)

    def _search_parameters(self, index: Any, selector: Any) -> Any:
        import faiss

        inner = faiss.RaBitQSearchParameters(sel=selector, qb=QUERY_BITS)  # pyright: ignore[reportCallIssue]
        return faiss.SearchParametersPreTransform(index_params=inner)  # pyright: ignore[reportCallIssue]

    def _fill(self, queries: FloatArray, scores: FloatArray, positions: IntArray, selector: Any) -> None:
        k = min(scores.shape[1], len(self))
        scores[:, :k], positions[:, :k] = self._search(self._index, queries, k, selector)
        scores[positions < 0] = -np.inf


class FastScanCodes(RaBitQCodes):
    """The same codes packed for fast scan, which reads all of them (faiss 1.15 accepts no selector here)."""

    kind = "rabitq_fast_scan"
    codes_class = "IndexRaBitQFastScan"
    _sizes = ("code_size", "M", "M2", "bbs", "ksub", "nbits")

    @classmethod
    def pack(cls, codes: RaBitQCodes) -> FastScanCodes:
        """Pack codes that are built."""
        packed = cls()
        packed._index = _packed(codes._built())
        return packed

    def _build(self, descriptors: FloatArray, rows_at_once: int) -> Any:
        return _packed(super()._build(descriptors, rows_at_once))

    def _search_parameters(self, index: Any, selector: Any) -> Any:
        self._check_all(selector)

    def _fill(self, queries: FloatArray, scores: FloatArray, positions: IntArray, selector: Any) -> None:
        super()._fill(queries, scores, positions, selector)
        # For a query equal to the mean, as with descriptors that are all equal, faiss 1.15.1 returns nothing.
        for row in np.flatnonzero(positions[:, 0] < 0):
            k = min(scores.shape[1], len(self))
            scores[row, :k], positions[row, :k] = queries[row] @ queries[row], np.arange(k)


def _packed(index: Any) -> Any:
    import faiss

    rotation, codes = _parts(index)
    packed: Any = faiss.IndexPreTransform(rotation, faiss.IndexRaBitQFastScan(codes))
    # The rotation belongs to `index`, which must therefore stay alive.
    packed.referenced_objects.append(index)
    return packed


def _parts(index: Any) -> tuple[Any, Any]:
    """The rotation and the codes of an index."""
    import faiss

    return faiss.downcast_VectorTransform(index.chain.at(0)), faiss.downcast_index(index.index)


@dataclass(eq=False)
class RaBitQIndex(Index):
    """Codes that select candidates, and descriptors for their exact cosines: answers can be missing.

    Args:
        shortlist: smallest number of candidates.
        factor: number of candidates per requested answer.
        depth: number of answers per query in an evaluation.

    Raises UserError for a setting below 1.
    """

    kind = "rabitq"
    faiss_class = "IndexRefineFlat"

    shortlist: int = 1000
    factor: int = 20
    depth: int | None = 1000

    def __post_init__(self) -> None:
        self._check_whole(1, "shortlist", "factor", "depth")

    def _build(self, descriptors: FloatArray, rows_at_once: int) -> Any:
        import faiss

        codes = FastScanCodes()
        codes.build(descriptors, rows_at_once)
        whole = np.ascontiguousarray(descriptors, np.float32)
        return faiss.IndexRefineFlat(codes._built(), faiss.swig_ptr(whole))

    def _memory_bytes(self, index: Any) -> int:
        import faiss

        codes = faiss.downcast_index(index.base_index)
        return FastScanCodes()._memory_bytes(codes) + 4 * index.d * index.ntotal

    def _search(self, index: Any, queries: FloatArray, k: int, selector: Any) -> tuple[FloatArray, IntArray]:
        import faiss

        self._check_all(selector)
        size = min(len(self), shortlist_size(k, self.shortlist, self.factor))
        parameters = faiss.IndexRefineSearchParameters(k_factor=size / k)  # pyright: ignore[reportCallIssue]
        return index.search(queries, k, params=parameters)

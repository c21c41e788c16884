"""One-bit codes of descriptors (RaBitQ: Gao and Long, SIGMOD 2024, by faiss), and exact cosines of what they propose.

A code keeps the sign of each value that a descriptor differs by from the gallery's mean, and two numbers: 72 bytes for
512 values, without training. By itself it estimates a cosine to a few hundredths, which is enough to propose answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dolglab.contracts import FloatArray, IntArray
from dolglab.retrieval.index import Index

# Bits of each value of a query, where codes are not packed for fast scan.
QUERY_BITS = 4
QUANTIZER_SIZES = ("d", "code_size", "nb_bits")


def shortlist_size(k: int, minimum: int = 1000, factor: int = 20) -> int:
    """How many answers codes are asked for where `k` are wanted.

    >>> shortlist_size(10), shortlist_size(100)
    (1000, 2000)
    """
    return max(minimum, factor * k)


class RaBitQCodes(Index):
    """The codes alone, whose scores are estimates: of equal ones any are given. Where a selection is searched."""

    kind = "rabitq_codes"
    faiss_class = "IndexRaBitQ"
    _sizes: ClassVar[tuple[str, ...]] = ("code_size",)

    def _build(self, descriptors: FloatArray, rows_at_once: int) -> Any:
        import faiss

        index = faiss.IndexRaBitQ(descriptors.shape[1], faiss.METRIC_INNER_PRODUCT)
        # What faiss calls training is the mean.
        index.train(np.ascontiguousarray(descriptors, np.float32))
        for start in range(0, len(descriptors), rows_at_once):
            index.add(np.ascontiguousarray(descriptors[start : start + rows_at_once], np.float32))
        return index

    def _memory_bytes(self, index: Any) -> int:
        return index.code_size * index.ntotal + 4 * index.d

    def _is_whole(self, index: Any) -> bool:
        import faiss

        # As faiss makes it, and blocks of codes that are full.
        made = getattr(faiss, self.faiss_class)(index.d, faiss.METRIC_INNER_PRODUCT)
        block = getattr(made, "bbs", 1)
        codes = -(-index.ntotal // block) * block * made.code_size
        same = all(getattr(index, name) == getattr(made, name) for name in self._sizes)
        quantizers = index.rabitq, made.rabitq
        same &= all(len({getattr(each, name) for each in quantizers}) == 1 for name in QUANTIZER_SIZES)
        return bool(same and index.center.size() == index.d and index.codes.size() == codes)

    def _search_parameters(self, index: Any, selector: Any) -> Any:
        import faiss

        return faiss.RaBitQSearchParameters(sel=selector, qb=QUERY_BITS)  # pyright: ignore[reportCallIssue]

    def _fill(self, queries: FloatArray, scores: FloatArray, positions: IntArray, selector: Any) -> None:
        k = min(scores.shape[1], len(self))
        scores[:, :k], positions[:, :k] = self._search(self._index, queries, k, selector)
        scores[positions < 0] = -np.inf


class FastScanCodes(RaBitQCodes):
    """The same codes packed for fast scan, which looks at all of them (faiss 1.15 takes no selector here)."""

    kind = "rabitq_fast_scan"
    faiss_class = "IndexRaBitQFastScan"
    _sizes = ("code_size", "M", "M2", "bbs", "ksub", "nbits")

    @classmethod
    def pack(cls, codes: RaBitQCodes) -> FastScanCodes:
        """Codes that are built, packed."""
        import faiss

        packed = cls()
        packed._index = faiss.IndexRaBitQFastScan(codes._built())
        return packed

    def _build(self, descriptors: FloatArray, rows_at_once: int) -> Any:
        import faiss

        return faiss.IndexRaBitQFastScan(super()._build(descriptors, rows_at_once))

    def _search_parameters(self, index: Any, selector: Any) -> Any:
        self._check_all(selector)

    def _fill(self, queries: FloatArray, scores: FloatArray, positions: IntArray, selector: Any) -> None:
        super()._fill(queries, scores, positions, selector)
        # To a query that is the mean, as of descriptors that are all equal, faiss (1.15.1) answers nothing.
        for row in np.flatnonzero(positions[:, 0] < 0):
            k = min(scores.shape[1], len(self))
            scores[row, :k], positions[row, :k] = queries[row] @ queries[row], np.arange(k)


@dataclass(eq=False)
class RaBitQIndex(Index):
    """Codes that propose answers, and whole descriptors that give their cosines: answers can be missing.

    Args:
        shortlist: answers that codes propose at least.
        factor: answers that they propose for each that is asked for.
        depth: how many answers an evaluation asks for.

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
        return (FastScanCodes()._memory_bytes(_codes(index)) if len(self) else 0) + 4 * index.d * index.ntotal

    def _search(self, index: Any, queries: FloatArray, k: int, selector: Any) -> tuple[FloatArray, IntArray]:
        import faiss

        self._check_all(selector)
        size = min(len(self), shortlist_size(k, self.shortlist, self.factor))
        parameters = faiss.IndexRefineSearchParameters(k_factor=size / k)  # pyright: ignore[reportCallIssue]
        return index.search(queries, k, params=parameters)


def _codes(index: Any) -> Any:
    import faiss

    return faiss.downcast_index(index.base_index)

"""Product quantisation after a learned rotation, every code compared (Ge et al., CVPR 2013)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.retrieval.index import Index, check_whole
from src.retrieval.index_training import add_in_parts, check_code, code_parts, set_clustering, training_rows


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
        InputError: a setting below 1 (a seed below 0), or bits out of 4 to 12.
    """

    kind = "opq_pq"

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
        check_code(code_bytes, bits)
        check_whole(1, training_sample=training_sample, iterations=iterations, depth=depth)
        check_whole(0, seed=seed)
        self.code_bytes = code_bytes
        self.bits = bits
        self.training_sample = training_sample
        self.iterations = iterations
        self.seed = seed
        self.depth = depth

    @property
    def settings(self) -> dict[str, int | None]:
        """What was asked of `build`."""
        names = ("code_bytes", "bits", "training_sample", "iterations", "seed")
        return {name: getattr(self, name) for name in names}

    def _make(self, descriptors: NDArray[np.float32]) -> Any:
        import faiss

        dim = descriptors.shape[1]
        rows = training_rows(descriptors, self.training_sample, self.seed)
        parts = code_parts(dim, self.code_bytes, self.bits, len(rows), self.kind)
        # faiss writes beyond its memory here, and the process ends (its issue 2637).
        if len(rows) < dim:
            raise InputError(
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
            set_clustering(quantizer.cp, self.iterations, self.seed, len(rows))
        index = faiss.IndexPreTransform(rotation, codes)
        index.train(rows)
        rotation.pq = None
        add_in_parts(index, descriptors)
        return index

    def _bytes(self, index: Any) -> int:
        import faiss

        codes: Any = faiss.downcast_index(index.index)
        return codes.code_size * index.ntotal + 4 * index.d * (index.d + codes.pq.ksub)

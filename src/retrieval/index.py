"""faiss indexes over a gallery's descriptors. faiss is imported only when an index is built."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError


class FlatIndex:
    """Exact search by inner product over every gallery descriptor."""

    exact = True

    def __init__(self) -> None:
        self._index = None

    def build(self, descriptors: NDArray[np.float32]) -> None:
        """Index the gallery, (N, D) float32, L2-normalised. Raises InputError for NaN or infinite values."""
        import faiss

        if not np.isfinite(descriptors).all():
            raise InputError("a gallery descriptor is not finite: the network gave NaN or infinity")
        self._index = faiss.IndexFlatIP(descriptors.shape[1])
        self._index.add(np.ascontiguousarray(descriptors, dtype=np.float32))

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and gallery positions, (Q, k) each, best first; equal cosines in gallery order."""
        if self._index is None:
            raise RuntimeError("build the index before searching it")
        scores, positions = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        order = np.lexsort((positions, -scores))
        return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)

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

        self._index = faiss.IndexFlatIP(descriptors.shape[1])
        self._index.add(_finite(descriptors, "gallery"))

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and gallery positions, (Q, k) each, best first; equal cosines in gallery order.

        Raises InputError for NaN or infinite values.
        """
        if self._index is None:
            raise RuntimeError("build the index before searching it")
        scores, positions = self._index.search(_finite(queries, "query"), k)
        order = np.lexsort((positions, -scores))
        return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def _finite(descriptors: NDArray[np.float32], role: str) -> NDArray[np.float32]:
    if not np.isfinite(descriptors).all():
        raise InputError(f"a {role} descriptor is not finite: the network gave NaN or infinity")
    return np.ascontiguousarray(descriptors, dtype=np.float32)

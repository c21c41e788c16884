"""What a library asks of the place where its descriptors lie."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from src.library.contents import Contents


class Store(Protocol):
    """Keeps descriptors by key: see `Contents`."""

    def write(self, number: int, descriptors: NDArray[np.float32]) -> str:
        """Keep descriptors, (n, dim), as the segment of that number; the kind of index over it.

        They are on disk when this returns, and count for nothing until the catalogue knows the segment.
        """
        ...

    def search(
        self, queries: NDArray[np.float32], k: int, contents: Contents, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and keys, (Q, k) each, best first; -inf and -1 where there are fewer.

        Only `allowed` keys, ascending, are looked at, where that is given.
        """
        ...

    def rows(self, number: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Descriptors of those rows of a segment, (n, dim), in their order."""
        ...

    def damaged(self, contents: Contents) -> list[int]:
        """Numbers of the segments that cannot be read."""
        ...

    def behind(self, contents: Contents) -> bool:
        """Whether a segment has another index over it than this store gives to those of its size."""
        ...

    def sweep(self, contents: Contents) -> None:
        """Let go of whatever the contents do not speak of."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...

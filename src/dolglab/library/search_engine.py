"""A library together with the network that asks it: what a command, a page and a program search with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dolglab.library.explain import VERIFIED, Explanation, SpatialVerifier, explain
from dolglab.library.library import Answer, Library
from dolglab.library.photos import photo_pixels
from dolglab.sharing.loading import load_extractor


class SearchEngine:
    """Searches the library in a folder with the network that made it, run by torch or onnx.

    Raises UserError where there is no library, or its network is no longer to be had.
    """

    def __init__(self, folder: str | Path, backend: str = "torch") -> None:
        self.library = Library(folder)
        identity = self.library.identity
        self.max_side: int = identity["max_side"]
        self.loaded = load_extractor(identity["source"], identity["scales"], self.max_side, backend)
        self.library.check(self.loaded.identity)
        self._verifier = SpatialVerifier(self.max_side)

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Descriptors, (n, dim), of pixels, (H, W, 3) each, as `query_pixels` gives them."""
        return self.loaded.describe(images)

    def search(
        self,
        queries: Sequence[NDArray[np.uint8]],
        count: int = 20,
        filters: Mapping[str, str] | None = None,
        verify: bool = False,
    ) -> list[list[Answer]]:
        """The best answers to each query's pixels; with `verify` re-ranked by local features.

        Raises UserError for a column that no photo has.
        """
        return self.search_descriptors(self.describe(queries), queries, count, filters, verify)

    def search_descriptors(
        self,
        descriptors: NDArray[np.float32],
        queries: Sequence[NDArray[np.uint8]],
        count: int = 20,
        filters: Mapping[str, str] | None = None,
        verify: bool = False,
    ) -> list[list[Answer]]:
        """The same for queries whose descriptors, (Q, dim), are known."""
        found = self.library.search(descriptors, max(count, VERIFIED) if verify else count, filters)
        if verify:
            found = [self._verifier(query, answers) for query, answers in zip(queries, found, strict=True)]
        return [answers[:count] for answers in found]

    def explain(self, query: NDArray[np.uint8], answer: Answer) -> Explanation:
        """Why an answer was found. Raises UserError where its photo can no longer be read."""
        pixels = photo_pixels(answer.photo.name, self.max_side)
        return explain(self.loaded.extractor, self._verifier, query, pixels)

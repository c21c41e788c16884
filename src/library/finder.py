"""A library together with the network that asks it: what a command, a page and a program search with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from src.library.answer import Answer
from src.library.explanation import Explanation, explain
from src.library.library import Library
from src.library.model import ready_model
from src.library.query import photo_pixels
from src.library.verification import DEPTH, Verifier


class Finder:
    """Searches the library in a folder with the network that made it, run by torch or onnx.

    Raises InputError where there is no library, or its network is no longer to be had.
    """

    def __init__(self, folder: str | Path, backend: str = "torch") -> None:
        self.library = Library(folder)
        made = self.library.identity
        self.max_side: int = made["max_side"]
        self.ready = ready_model(made["source"], made["scales"], self.max_side, backend)
        self.library.check(self.ready.identity)
        self._verifier = Verifier(self.max_side)

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Descriptors, (n, dim), of pixels, (H, W, 3) each, as `query_pixels` gives them."""
        with torch.inference_mode():
            return self.ready.extractor([torch.from_numpy(image) for image in images]).float().cpu().numpy()

    def search(
        self,
        queries: Sequence[NDArray[np.uint8]],
        count: int = 20,
        filters: Mapping[str, str] | None = None,
        verify: bool = False,
    ) -> list[list[Answer]]:
        """The best answers to each query's pixels; with `verify` re-ranked by local features.

        Raises InputError for a column that no photo has.
        """
        return self.search_described(self.describe(queries), queries, count, filters, verify)

    def search_described(
        self,
        descriptors: NDArray[np.float32],
        queries: Sequence[NDArray[np.uint8]],
        count: int = 20,
        filters: Mapping[str, str] | None = None,
        verify: bool = False,
    ) -> list[list[Answer]]:
        """The same for queries whose descriptors, (Q, dim), are known."""
        found = self.library.search(descriptors, max(count, DEPTH) if verify else count, filters)
        if verify:
            found = [self._verifier(query, answers) for query, answers in zip(queries, found, strict=True)]
        return [answers[:count] for answers in found]

    def explain(self, query: NDArray[np.uint8], answer: Answer) -> Explanation:
        """Why an answer was found. Raises InputError where its photo can no longer be read."""
        return explain(self.ready, self._verifier, query, photo_pixels(answer.photo.name, self.max_side))

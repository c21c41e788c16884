"""The first answers of a search once more: by how many local features one transformation brings over from the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from src.contracts import InputError, LocalFeatures
from src.extraction.rootsift import RootSIFT
from src.library.answer import Answer
from src.library.query import photo_pixels
from src.retrieval.rerank.spatial import Match, Spatial

# Answers that are verified, local features of a photo, and fewer inliers than happen by chance.
DEPTH, FEATURES, CHANCE = 50, 1000, 8
RESIDUAL, RATIO = 10.0, 0.9
# Photos whose local features are kept for the next query: 250 KB each.
KEPT = 512


class Verifier:
    """Spatial verification by RootSIFT, which needs no training and no room in the library.

    Args:
        max_side: photos are shrunk to so many pixels before.
    """

    def __init__(self, max_side: int) -> None:
        self.max_side = max_side
        self._features = RootSIFT(max_features=FEATURES)
        self._spatial = Spatial(depth=DEPTH, residual=RESIDUAL, ratio=RATIO)
        self._known = lru_cache(KEPT)(self._read)

    def __call__(self, query: NDArray[np.uint8], answers: Sequence[Answer]) -> list[Answer]:
        """The answers with the inliers of the first ones, most inliers first; fewer than by chance change nothing.

        Args:
            query: pixels, (H, W, 3).
        """
        if not answers:
            return []
        features = self.features(query)
        verified = [replace(a, inliers=self._inliers(features, a)) for a in answers[:DEPTH]]
        verified.sort(key=lambda a: -a.inliers if a.inliers and a.inliers >= CHANCE else 0)
        return [*verified, *answers[DEPTH:]]

    def match(self, query: NDArray[np.uint8], answer: NDArray[np.uint8]) -> tuple[LocalFeatures, LocalFeatures, Match]:
        """Local features of two photos, and which of them match."""
        ours, theirs = self.features(query), self.features(answer)
        return ours, theirs, self._spatial.verified(ours, theirs)

    def features(self, pixels: NDArray[np.uint8]) -> LocalFeatures:
        """Local features of a photo, (H, W, 3)."""
        return self._features([torch.from_numpy(pixels)])[0]

    def _inliers(self, query: LocalFeatures, answer: Answer) -> int | None:
        """None where the photo can no longer be read."""
        photo = answer.photo
        try:
            features = self._known(photo.name, photo.size, photo.changed)
        except InputError:
            return None
        return self._spatial.verified(query, features).count

    def _read(self, name: str, size: int, changed: int) -> LocalFeatures:
        return self.features(photo_pixels(name, self.max_side))

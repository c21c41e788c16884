"""Why a photo was found: what its cosine is made of, where the network looks, which local features match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dolglab.contracts import LocalFeatures
from dolglab.errors import UserError
from dolglab.extraction.explain import Terms, parts_of, similarity_terms
from dolglab.extraction.extractor import Extractor, attention_scores, rescale
from dolglab.extraction.rootsift import RootSIFT
from dolglab.library.library import Answer
from dolglab.library.query import Ready, photo_pixels
from dolglab.results.pictures import attention_overlay, match_figure
from dolglab.retrieval.rerank.spatial import Match, Spatial

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
        except UserError:
            return None
        return self._spatial.verified(query, features).count

    def _read(self, name: str, size: int, changed: int) -> LocalFeatures:
        return self.features(photo_pixels(name, self.max_side))


@dataclass(frozen=True)
class Explanation:
    """A query and an answer beside each other.

    Attributes:
        terms: what the cosine is the sum of; None where the descriptor is of several scales, or of a fusion that mixes.
        matches: local features that match, and how many of them, the `inliers`, one transformation explains.
        picture: a JPEG of the inliers.
        attention: JPEGs of where the network looks in the query and in the answer.
    """

    terms: Terms | None
    matches: int
    inliers: int
    picture: bytes
    attention: tuple[bytes, bytes]


def explain(ready: Ready, verifier: Verifier, query: NDArray[np.uint8], answer: NDArray[np.uint8]) -> Explanation:
    """Why `answer` was found for `query`, pixels (H, W, 3) of both."""
    ours, theirs, match = verifier.match(query, answer)
    rows = match.matches[match.inlier]
    picture = match_figure(
        query,
        answer,
        ours.keypoints[rows[:, 0]],
        theirs.keypoints[rows[:, 1]],
        f"{match.count} inliers of {len(match.matches)} matches",
    )
    maps = [attention_overlay(image, attention_scores(ready.extractor.model, image)) for image in (query, answer)]
    return Explanation(
        _terms(ready.extractor, query, answer), len(match.matches), match.count, picture, (maps[0], maps[1])
    )


def _terms(extractor: Extractor, query: NDArray[np.uint8], answer: NDArray[np.uint8]) -> Terms | None:
    if len(extractor.scales) > 1:
        return None
    ours, theirs = (parts_of(extractor.model, _input(extractor, image)) for image in (query, answer))
    return None if ours is None or theirs is None else similarity_terms(ours, theirs)


def _input(extractor: Extractor, image: NDArray[np.uint8]) -> Float[Tensor, "1 3 h w"]:
    pixels = torch.from_numpy(image).to(extractor.device).permute(2, 0, 1)[None].float()
    return extractor.model.backbone.normalise(rescale(pixels, extractor.scales[0], extractor.resize))

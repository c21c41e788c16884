"""Why a photo was found: what its cosine is made of, where the network looks, which local features match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import LocalFeatures
from dolglab.data.colour import Pixels
from dolglab.errors import UserError
from dolglab.library.contents import Photo
from dolglab.library.library import Answer
from dolglab.results.pictures import attention_overlay, match_figure
from dolglab.retrieval.rerank.spatial import Match, Spatial

if TYPE_CHECKING:
    from dolglab.extraction.extractor import Extractor, Parts, Terms

T = TypeVar("T")

# Answers that are verified, and local features of a photo.
VERIFIED, FEATURES = 50, 1000
# Pixels by which an inlier may be off, and how much nearer it is than the second nearest: see `Spatial`.
RESIDUAL, RATIO = 10.0, 0.9
# Fewer inliers happen by chance.
MIN_INLIERS = 8
# Photos whose local features are kept for the next query: 250 KB each.
CACHED_PHOTOS = 512


class SpatialVerifier:
    """Spatial verification by RootSIFT, of photos shrunk to `max_side` pixels: no training, no room in the library."""

    def __init__(self, max_side: int) -> None:
        from dolglab.extraction.rootsift import RootSIFT

        self._rootsift = RootSIFT(max_features=FEATURES)
        self._spatial = Spatial(depth=VERIFIED, residual=RESIDUAL, ratio=RATIO)
        # Size and time of change make the cache forget a photo that is another one now.
        self._cached_features = lru_cache(CACHED_PHOTOS)(lambda *photo: self._features(Photo(*photo).pixels(max_side)))

    def __call__(self, query: Pixels, answers: Sequence[Answer]) -> list[Answer]:
        """The answers with the inliers of the first ones, most inliers first; fewer than by chance change nothing.

        The query is pixels, (H, W, 3).
        """
        if not answers:
            return []
        features = self._features(query)
        verified = [replace(answer, inliers=self._inliers(features, answer)) for answer in answers[:VERIFIED]]
        verified.sort(key=lambda a: -a.inliers if a.inliers and a.inliers >= MIN_INLIERS else 0)
        return [*verified, *answers[VERIFIED:]]

    def match(self, query: Pixels, answer: Pixels) -> tuple[LocalFeatures, LocalFeatures, Match]:
        """Local features of two photos, (H, W, 3) each, and which of them match."""
        ours, theirs = self._features(query), self._features(answer)
        return ours, theirs, self._spatial.verified(ours, theirs)

    def _features(self, pixels: Pixels) -> LocalFeatures:
        return self._rootsift.extract(pixels)

    def _inliers(self, query: LocalFeatures, answer: Answer) -> int | None:
        """None where the photo can no longer be read."""
        photo = answer.photo
        try:
            features = self._cached_features(photo.name, photo.size, photo.changed)
        except UserError:
            return None
        return self._spatial.verified(query, features).count


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


class RunNetwork(Protocol):
    """Calls what runs the network, in a thread of its own perhaps, and returns what that returns."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


def run_here(work: Callable[[], T]) -> T:
    """Calls it in the caller's thread."""
    return work()


def explain(
    extractor: Extractor, verifier: SpatialVerifier, query: Pixels, answer: Pixels, run_network: RunNetwork = run_here
) -> Explanation:
    """Why `answer` was found for `query`, pixels (H, W, 3) of both.

    `run_network` is called for each of them, so that others can use the network in between.
    """
    from dolglab.extraction.extractor import attention_scores, similarity_terms

    def look(image: Pixels) -> tuple[NDArray[np.float32], Parts | None]:
        return attention_scores(extractor.model, image), _parts(extractor, image)

    (query_scores, query_parts), (answer_scores, answer_parts) = (
        run_network(partial(look, image)) for image in (query, answer)
    )
    terms = None if query_parts is None or answer_parts is None else similarity_terms(query_parts, answer_parts)
    ours, theirs, match = verifier.match(query, answer)
    picture = match_figure(query, answer, ours, theirs, match.matches, match.inlier)
    attention = attention_overlay(query, query_scores), attention_overlay(answer, answer_scores)
    return Explanation(terms, len(match.matches), match.count, picture, attention)


def _parts(extractor: Extractor, image: Pixels) -> Parts | None:
    """What the image's descriptor is the sum of; None where it is of several scales, or of a fusion that mixes."""
    import torch

    from dolglab.extraction.extractor import parts_of, rescale

    if len(extractor.scales) != 1:
        return None
    pixels = torch.from_numpy(image).to(extractor.device).permute(2, 0, 1)[None].float()
    scaled = rescale(pixels, extractor.scales[0], extractor.resize)
    return parts_of(extractor.model, extractor.model.backbone.normalise(scaled))

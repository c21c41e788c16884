"""Answers verified by local features: XFeat's where its weights and onnxruntime are installed, else RootSIFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from dolglab.concurrency import available_cores, prefetch_map
from dolglab.contracts import LocalFeatures
from dolglab.data.colour import Pixels
from dolglab.data.image_reading import READ_ALL, shrink
from dolglab.errors import UserError
from dolglab.library.contents import Answer, Photo
from dolglab.library.packing import pack
from dolglab.retrieval.rerank.spatial import Match, Spatial

if TYPE_CHECKING:
    # OpenCV is imported when something is verified.
    from dolglab.extraction.rootsift import RootSIFT
    from dolglab.extraction.xfeat import XFeat

# Answers that are verified, and local features of a photo.
VERIFIED, FEATURES = 50, 1000
# Pixels of the longer side of what XFeat sees: more take longer than they are worth.
SIDE = 640
# Photos whose local features are kept in memory for the next query: 250 KB each at most.
CACHED_PHOTOS = 512
# Photos are read as they are described, large JPEGs at half their size.
READING = READ_ALL._replace(decoding="scaled")


@dataclass(frozen=True)
class Method:
    """What verifies, with the settings that were best (experiments/verification).

    Attributes:
        title: what a person is told.
        extractor: makes local features.
        spatial: matches them, and counts inliers.
        min_inliers: answers with fewer stay in the order of their cosines.
        max_side: photos are shrunk to so many pixels; None for what the library's network takes.
    """

    title: str
    extractor: XFeat | RootSIFT
    spatial: Spatial
    min_inliers: int
    max_side: int | None = None


def best_method() -> Method:
    """XFeat, run without torch, where its weights and onnxruntime are installed; else RootSIFT."""
    from dolglab.extraction.rootsift import RootSIFT
    from dolglab.extraction.xfeat import XFeat

    try:
        extractor = XFeat(max_features=FEATURES, side=SIDE, backend="onnx", threads=1)
    except UserError:
        return Method("RootSIFT", RootSIFT(max_features=FEATURES), Spatial(VERIFIED, residual=10.0, ratio=0.9), 8)
    return Method("XFeat", extractor, Spatial(VERIFIED, residual=12.0, least=0.75), 20, max_side=SIDE)


class SpatialVerifier:
    """Spatial verification of photos, which a library has at most at `max_side` pixels.

    Attributes:
        method: what verifies.
        side: photos are shrunk to so many pixels; places of local features are pixels of those.
    """

    def __init__(self, max_side: int) -> None:
        self.method = best_method()
        self.side = min(max_side, self.method.max_side or max_side)
        # Size and time of change make the cache forget a photo that is another one now.
        self._cached_features = lru_cache(CACHED_PHOTOS)(
            lambda *photo: self.features(Photo(*photo).pixels(self.side, READING))
        )

    def __call__(
        self, query: Pixels, answers: Sequence[Answer], kept: Mapping[int, LocalFeatures] | None = None
    ) -> list[Answer]:
        """The answers with the inliers of the first ones, most inliers first; fewer than by chance change nothing.

        The query is pixels, (H, W, 3); `kept` are local features by the photos' numbers, where these are known.
        """
        if not answers:
            return []
        known = kept or {}
        ours = self.features(query)
        workers = available_cores()

        def inliers(answer: Answer) -> int | None:
            """None where the photo can no longer be read."""
            photo = answer.photo
            theirs = None if photo.id is None else known.get(photo.id)
            try:
                if theirs is None:
                    theirs = self._cached_features(photo.name, photo.size, photo.changed)
            except UserError:
                return None
            return self.method.spatial.verified(ours, theirs).count

        counted = prefetch_map(inliers, answers[:VERIFIED], workers, 2 * workers)
        verified = [replace(answer, inliers=count) for answer, count in counted]
        verified.sort(key=lambda a: -a.inliers if a.inliers and a.inliers >= self.method.min_inliers else 0)
        return [*verified, *answers[VERIFIED:]]

    def features(self, pixels: Pixels) -> LocalFeatures:
        """Local features of a photo, (H, W, 3), in pixels of what it is shrunk to."""
        return self.method.extractor.extract(shrink(pixels, self.side))

    def packed(self, pixels: Pixels) -> bytes:
        """Local features of a photo, (H, W, 3), as a library keeps them."""
        return pack(self.features(pixels))

    def match(self, query: Pixels, answer: Pixels) -> tuple[LocalFeatures, LocalFeatures, Match]:
        """Local features of two photos, (H, W, 3) each, and which of them match."""
        ours, theirs = self.features(query), self.features(answer)
        return ours, theirs, self.method.spatial.verified(ours, theirs)

    def config(self) -> dict[str, object]:
        """What decides the features, in plain values: other ones are not compared with them."""
        return {**self.method.extractor.config(), "side": self.side}

"""Verify answers by local features: XFeat if its weights and onnxruntime are installed, else RootSIFT."""

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

# Number of answers that are verified, and of local features per photo.
VERIFIED, FEATURES = 50, 1000
# Longer side of XFeat's images in pixels; larger ones take more time than they are worth.
SIDE = 640
# Number of photos whose local features stay in memory for the next query, at most 250 KB each.
CACHED_PHOTOS = 512
# Photos are read as for describing, large JPEGs at half their size.
READING = READ_ALL._replace(decoding="scaled")


@dataclass(frozen=True)
class Method:
    """A method of verification, with the best settings of experiments/verification.

    Attributes:
        title: name for users.
        extractor: extracts local features.
        spatial: matches them and counts inliers.
        min_inliers: answers with fewer inliers stay in the order of their cosines.
        max_side: photos are shrunk to this many pixels; None for the side of the library's network.
    """

    title: str
    extractor: XFeat | RootSIFT
    spatial: Spatial
    min_inliers: int
    max_side: int | None = None


def best_method() -> Method:
    """XFeat, run without torch, if its weights and onnxruntime are installed; else RootSIFT."""
    from dolglab.extraction.rootsift import RootSIFT
    from dolglab.extraction.xfeat import XFeat

    try:
        extractor = XFeat(max_features=FEATURES, side=SIDE, backend="onnx", threads=1)
    except UserError:
        return Method("RootSIFT", RootSIFT(max_features=FEATURES), Spatial(VERIFIED, residual=10.0, ratio=0.9), 8)
    return Method("XFeat", extractor, Spatial(VERIFIED, residual=12.0, least=0.75), 20, max_side=SIDE)


class SpatialVerifier:
    """Spatial verification of a library's photos, which are described at `max_side` pixels at most.

    Attributes:
        method: the method of verification.
        side: photos are shrunk to this many pixels, the unit of local features' positions.
    """

    def __init__(self, max_side: int) -> None:
        self.method = best_method()
        self.side = min(max_side, self.method.max_side or max_side)
        # Size and modification time are part of the key, so that changed photos are read again.
        self._cached_features = lru_cache(CACHED_PHOTOS)(
            lambda *photo: self.features(Photo(*photo).pixels(self.side, READING))
        )

    def __call__(
        self, query: Pixels, answers: Sequence[Answer], kept: Mapping[int, LocalFeatures] | None = None
    ) -> list[Answer]:
        """The answers, the first `VERIFIED` of which are verified and sorted by inliers, if these are not by chance.

        The query is pixels, (H, W, 3); `kept` are known local features by photos' numbers.
        """
        if not answers:
            return []
        known = kept or {}
        ours = self.features(query)
        workers = available_cores()

        def inliers(answer: Answer) -> int | None:
            """None if the photo can no longer be read."""
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
        """Local features of a photo, (H, W, 3), in pixels of the shrunk photo."""
        return self.method.extractor.extract(shrink(pixels, self.side))

    def packed(self, pixels: Pixels) -> bytes:
        """Packed local features of a photo, (H, W, 3), as a library keeps them."""
        return pack(self.features(pixels))

    def match(self, query: Pixels, answer: Pixels) -> tuple[LocalFeatures, LocalFeatures, Match]:
        """Local features of two photos, (H, W, 3) each, and their matches."""
        ours, theirs = self.features(query), self.features(answer)
        return ours, theirs, self.method.spatial.verified(ours, theirs)

    def config(self) -> dict[str, object]:
        """All settings that determine the features; only features with equal settings are comparable."""
        return {**self.method.extractor.config(), "side": self.side}

"""Re-ranking by the number of local features that one transformation maps from the query to the answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import cast

import numpy as np
from jaxtyping import Bool, Int

from dolglab.contracts import IntArray, LocalFeatures, Shortlist
from dolglab.errors import UserError
from dolglab.retrieval.rerank.geometry import MINIMUM, Kind, inliers, mutual_matches


@dataclass(frozen=True)
class Match:
    """Matched features of two images, (m, 2) rows of both, and which are inliers of one transformation, (m,)."""

    matches: Int[np.ndarray, "m 2"]
    inlier: Bool[np.ndarray, " m"]

    @property
    def count(self) -> int:
        return int(self.inlier.sum())


@dataclass(eq=False)
class Spatial:
    """Spatial verification: orders the first answers by inliers, ties as before (Cao et al., ECCV 2020, section 4).

    Args:
        depth: number of answers that are verified.
        kind: the transformation that is fitted, "affine" or "homography".
        residual: largest distance of an inlier in pixels, in both images.
        iterations: number of samples that RANSAC draws.
        ratio: largest ratio of the distances to the nearest and second nearest descriptor; 1 disables the test.
        least: smallest cosine of matched descriptors.

    Raises UserError for settings out of range.
    """

    depth: int = 100
    kind: str = "affine"
    residual: float = 20.0
    iterations: int = 1000
    ratio: float = 1.0
    least: float = -1.0
    local = True

    def __post_init__(self) -> None:
        if self.kind not in MINIMUM:
            raise UserError(f"rerank.kind must be affine or homography, not {self.kind}")
        limits = self.residual > 0, 0 < self.ratio <= 1, -1 <= self.least <= 1
        if min(self.depth, self.iterations) < 1 or not all(limits):
            raise UserError(
                "rerank.depth and .iterations must be at least 1, residual above 0, ratio in (0, 1], least in [-1, 1]"
            )

    def __call__(self, shortlist: Shortlist) -> IntArray:
        """The new order of the answers, (k,): most inliers first, ties in their old order."""
        query = shortlist.local(shortlist.query_image)
        counts = [self.verified(query, shortlist.local(p)).count for p in shortlist.positions.tolist()]
        return np.argsort(-np.array(counts, np.int64), kind="stable")

    def verified(self, a: LocalFeatures, b: LocalFeatures) -> Match:
        """The matches between two images, and which are inliers; too few matches have no inliers."""
        matches = mutual_matches(a.descriptors, b.descriptors, self.ratio, self.least)
        points = a.keypoints[matches[:, 0]], b.keypoints[matches[:, 1]]
        return Match(matches, inliers(*points, cast("Kind", self.kind), self.residual, self.iterations)[0])

    def config(self) -> dict[str, object]:
        return {"rerank": "spatial", **asdict(self)}

"""Which training images are looked at for each probe, and which of them show the same thing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from src.contracts import InputError, LocalFeatures
from src.evaluation.overlap_files import Overlap
from src.evaluation.overlap_sets import PROBES
from src.retrieval.ranking import exact_ranking
from src.retrieval.rerank.spatial import Spatial


@dataclass(frozen=True)
class Rule:
    """What counts as an overlap.

    Args:
        probes: "queries", "positives" or both. A benchmark has few queries, and its positives, easy and hard, show
            the same landmarks from elsewhere and at other times: a training image may match one of these alone.
        candidates: how many nearest training images of each probe are looked at.
        threshold: the least cosine of descriptors of an image that is looked at.
        inliers: the least number of local matches that agree on one geometry.
        images: landmarks with fewer overlapping images are not put on the list.

    Raises:
        InputError: a value that makes no sense.
    """

    probes: Sequence[str] = PROBES
    candidates: int = 20
    threshold: float = 0.0
    inliers: int = 15
    images: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.probes, str) or not self.probes or not set(self.probes) <= set(PROBES):
            raise InputError(f"probes must be [queries], [positives] or [queries,positives], not {self.probes}")
        for name, value in (("candidates", self.candidates), ("inliers", self.inliers), ("images", self.images)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number above 0, not {value}")
        if not isinstance(self.threshold, int | float) or not -1 <= self.threshold <= 1:
            raise InputError(f"threshold is a cosine, from -1 to 1, not {self.threshold}")


class Pairs(NamedTuple):
    """Positions of probes and of training images to be compared, and the cosines of their descriptors; (P,) each."""

    probes: NDArray[np.int64]
    images: NDArray[np.int64]
    cosines: NDArray[np.float32]


def nearest(
    gallery: NDArray[np.floating],
    known: NDArray[np.bool_],
    queries: NDArray[np.float32],
    probes: NDArray[np.int64],
    rule: Rule,
) -> Pairs:
    """The first images of each probe's ranking that are near enough.

    Args:
        gallery: (N, D) descriptors of the training images; `known` says of which there are any, (N,).
        queries: (Q, D) those of the probes at the positions `probes`, (Q,).
        rule: how many, and how near.
    """
    nothing = [np.empty(0, np.int64)] * len(queries)
    found = exact_ranking(gallery, queries, nothing, min(rule.candidates, len(gallery)), known)
    rows, columns = np.nonzero((found.heads >= 0) & (found.scores >= rule.threshold))
    return Pairs(probes[rows], found.heads[rows, columns], found.scores[rows, columns])


def verified(
    pairs: Pairs,
    probes: Callable[[int], LocalFeatures],
    images: Callable[[int], LocalFeatures],
    spatial: Spatial,
    inliers: int,
    benchmark: int = 0,
) -> list[Overlap]:
    """The pairs of which at least so many local matches agree on one geometry, in their order."""
    rows = zip(pairs.probes.tolist(), pairs.images.tolist(), pairs.cosines.tolist(), strict=True)
    bar = track(rows, "comparing", len(pairs.probes), transient=True, disable=not sys.stdout.isatty())
    counted = (
        Overlap(benchmark, probe, image, cosine, spatial.verified(probes(probe), images(image)).count)
        for probe, image, cosine in bar
    )
    return [overlap for overlap in counted if overlap.inliers >= inliers]

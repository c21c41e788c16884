"""A retrieval benchmark from class labels: every image is a query for the others of its landmark."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, GroundTruth, ImageSource, InputError


def class_benchmark(name: str, source: ImageSource, landmarks: NDArray[np.str_]) -> Benchmark:
    """The images of `source`, labelled with their landmarks, as queries and gallery at once.

    Each query is junk to itself; there is one difficulty only, reported as Medium.
    Raises InputError when no landmark has two images.
    """
    rows = np.arange(len(source))
    members = members_of(landmarks)
    others = tuple(members[landmark][members[landmark] != row] for row, landmark in enumerate(landmarks.tolist()))
    if not any(len(part) for part in others):
        raise InputError(f"{name}: no landmark has two photos, so there is nothing to find")
    truth = GroundTruth(
        easy=others,
        hard=(np.empty(0, np.int64),) * len(rows),
        junk=tuple(rows[row : row + 1] for row in rows),
    )
    names = [source.name(row) for row in range(len(source))]
    return Benchmark(
        name=name,
        source=source,
        num_gallery=len(rows),
        queries=rows,
        boxes=np.full((len(rows), 4), np.nan),
        ground_truth=truth,
        crop="none",
        digest=digest(names, [source.size(row) for row in range(len(source))], truth),
        difficulties=("medium",),
    )


def members_of(landmarks: NDArray[np.str_]) -> dict[str, NDArray[np.int64]]:
    """The rows of each landmark, ascending; one sort, whatever the number of landmarks."""
    names, labels = np.unique(landmarks, return_inverse=True)
    rows = np.argsort(labels, kind="stable")
    parts = np.split(rows, np.searchsorted(labels[rows], np.arange(1, len(names))))
    return dict(zip(names.tolist(), parts, strict=True)) if len(names) else {}


def digest(names: list[str], sizes: list[int], ground_truth: GroundTruth) -> str:
    """A short fingerprint of a benchmark: image names, file sizes in bytes, and ground truth."""
    lists = [[part.tolist() for part in kind] for kind in (ground_truth.easy, ground_truth.hard, ground_truth.junk)]
    return hashlib.sha256(json.dumps([names, sizes, lists]).encode()).hexdigest()[:16]

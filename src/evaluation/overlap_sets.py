"""What an audit compares: training images, and the probes of a benchmark."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, GroundTruth, ImageSource, TrainingSet
from src.data.folder import scan_folder
from src.data.gldv2 import Kind, load_gldv2
from src.data.sources import FolderSource, stable_ids

# What can be asked of a benchmark: its queries, and the images that show what these show.
PROBES = ("queries", "positives")
# Asking for a file's size is waiting, on a network file system above all.
THREADS, AT_ONCE = 16, 4096


def training_images(root: str | Path, train_csv: str | None = "train_clean.csv", source: Kind = "auto") -> TrainingSet:
    """The images of Google Landmarks v2 (see `load_gldv2`), or all of a folder with one sub-folder a landmark.

    Args:
        root: the folder.
        train_csv: which of GLDv2's lists; None for a folder of sub-folders.
        source: how GLDv2's images lie there.

    Raises:
        InputError: as `load_gldv2` and `scan_folder`.
    """
    if train_csv is not None:
        return load_gldv2(root, train_csv, kind=source)
    photos = scan_folder(root)
    classes, labels = np.unique(photos.landmarks, return_inverse=True)
    ids = stable_ids(photos.names)
    return TrainingSet(FolderSource(photos.root, photos.names), ids, labels.astype(np.int64), classes)


def as_benchmark(training: TrainingSet) -> Benchmark:
    """Training images as a gallery that nothing is asked of; its digest is of their ids and sizes in bytes."""
    nothing: tuple[NDArray[np.int64], ...] = ()
    fingerprint = hashlib.sha256(np.ascontiguousarray(training.ids).data)
    fingerprint.update(_sizes(training.source).data)
    return Benchmark(
        name="training",
        source=training.source,
        num_gallery=len(training),
        queries=np.empty(0, np.int64),
        boxes=np.empty((0, 4)),
        ground_truth=GroundTruth(nothing, nothing, nothing),
        crop="none",
        digest=fingerprint.hexdigest()[:16],
    )


def probes_of(benchmark: Benchmark, parts: Collection[str]) -> NDArray[np.int64]:
    """Positions of the images that show a benchmark's landmarks, ascending: queries, positives, or both.

    Of recognition, whose positives are training images themselves, only the queries.
    """
    truth = benchmark.ground_truth
    found = [benchmark.queries] if "queries" in parts else []
    if "positives" in parts and benchmark.measure != "GAP":
        found += [*truth.easy, *truth.hard]
    return np.unique(np.concatenate([np.empty(0, np.int64), *found]))


def _sizes(source: ImageSource) -> NDArray[np.int64]:
    """(N,) bytes of each image."""

    def sizes(start: int) -> list[int]:
        return [source.size(position) for position in range(start, min(start + AT_ONCE, len(source)))]

    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(sizes, range(0, len(source), AT_ONCE)))
    return np.array([size for part in parts for size in part], np.int64)

"""Leak audit: find training images that show a benchmark's landmarks (by descriptors, then RANSAC)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, ExtractedFeatures, GroundTruth, LocalFeatures, TrainingSet
from dolglab.data.folder import scan_folder
from dolglab.data.gldv2 import Kind, load_gldv2
from dolglab.data.sources import FolderSource, stable_ids
from dolglab.errors import UserError, pluralize, truncate_list
from dolglab.evaluation.evaluator import FeatureExtractor
from dolglab.evaluation.overlap_files import IMAGES, LANDMARKS, SHEET, Audit, Overlap, write_audit
from dolglab.io import folder_lock
from dolglab.measures import RevisitedMeasure
from dolglab.progress import track
from dolglab.results.provenance import versions
from dolglab.retrieval.ranking import exact_ranking
from dolglab.retrieval.rerank.spatial import Spatial

# The kinds of probes: a benchmark's queries, and the images that show the same landmarks.
PROBES = ("queries", "positives")
# Asking for a file's size means waiting, above all on a network file system.
THREADS, SIZES_AT_ONCE = 16, 4096
CAUTION = (
    "the findings of a detector: it misses images that share too little with every probe, and may mistake a look-alike "
    "for the landmark; check the contact sheet by eye"
)


@dataclass(frozen=True)
class Rule:
    """What counts as an overlap.

    Args:
        probes: "queries", "positives" or both. A benchmark has few queries. Its positives, easy and hard, show the same
            landmarks from other viewpoints and at other times, and a training image may match only one of these.
        candidates: number of nearest training images that are checked for each probe.
        threshold: smallest cosine of descriptors for an image to be checked.
        inliers: smallest number of local matches that agree on one geometry.
        images: landmarks with fewer overlapping images are not listed.

    Raises UserError for an invalid value.
    """

    probes: Sequence[str] = PROBES
    candidates: int = 20
    threshold: float = 0.0
    inliers: int = 15
    images: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.probes, str) or not self.probes or not set(self.probes) <= set(PROBES):
            raise UserError(f"probes must be [queries], [positives] or [queries,positives], not {self.probes}")
        for name, value in (("candidates", self.candidates), ("inliers", self.inliers), ("images", self.images)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number above 0, not {value}")
        if not isinstance(self.threshold, int | float) or not -1 <= self.threshold <= 1:
            raise UserError(f"threshold must be a cosine, from -1 to 1, not {self.threshold}")


def find_overlap(
    training: TrainingSet,
    benchmarks: Sequence[Callable[[], Benchmark] | None],
    extractor: FeatureExtractor,
    spatial: Spatial,
    rule: Rule,
    out: str | Path,
) -> Audit | None:
    """Find training images that show the landmarks of benchmarks, and write the result to `out` (see `write_audit`).

    Each probe of a benchmark is compared with its nearest training images by descriptor. An image is an overlap if
    enough local matches agree on one geometry.

    Returns the audit in the main process; None in the others.
    Raises UserError without a benchmark or a probe, and like its parts.
    """
    out = Path(out)
    sets = [build() for build in benchmarks if build is not None]
    if not sets:
        raise UserError("an audit compares the training images with a benchmark: set benchmark=NAME")
    probes = [probes_of(benchmark, rule.probes) for benchmark in sets]
    for benchmark, found in zip(sets, probes, strict=True):
        if not len(found):
            raise UserError(f"{benchmark.name} has no image to compare with (probes={list(rule.probes)})")
    with folder_lock(out) if extractor.main else nullcontext():
        gallery = as_benchmark(training)
        pairs = _candidates(extractor, gallery, sets, probes, rule)
        local = [extractor.local_features(b, np.unique(p.probes)).features for b, p in zip(sets, pairs, strict=True)]
        images = extractor.local_features(gallery, np.unique(np.concatenate([p.images for p in pairs]))).features
        if not extractor.main:
            return None
        overlaps = [
            overlap
            for number, (features, own) in enumerate(zip(local, pairs, strict=True))
            for overlap in verify_pairs(own, features, images, spatial, rule.inliers, number)
        ]
        audit = Audit(training, gallery, tuple(sets), tuple(overlaps), rule.images)
        write_audit(out, audit, _about(audit, extractor, spatial, rule, probes, pairs))
        _print_summary(audit, out, pairs)
    return audit


def training_images(root: str | Path, train_csv: str | None = "train_clean.csv", source: Kind = "auto") -> TrainingSet:
    """The images of a Google Landmarks v2 list (see `load_gldv2`), or of a folder with one sub-folder per landmark.

    `source` is how GLDv2's images are stored. Raises UserError like `load_gldv2` and `scan_folder`.
    """
    if train_csv is not None:
        return load_gldv2(root, train_csv, kind=source)
    photos = scan_folder(root)
    classes, labels = np.unique(photos.landmarks, return_inverse=True)
    ids = stable_ids(photos.names)
    return TrainingSet(FolderSource(photos.root, photos.names), ids, labels.astype(np.int64), classes)


def as_benchmark(training: TrainingSet) -> Benchmark:
    """Training images as a gallery without queries; the digest covers their ids and sizes in bytes."""
    source = training.source

    def sizes(start: int) -> list[int]:
        return [source.size(position) for position in range(start, min(start + SIZES_AT_ONCE, len(source)))]

    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(sizes, range(0, len(source), SIZES_AT_ONCE)))
    fingerprint = hashlib.sha256(np.ascontiguousarray(training.ids).data)
    fingerprint.update(np.array([size for part in parts for size in part], np.int64).data)
    nothing: tuple[NDArray[np.int64], ...] = ()
    return Benchmark(
        name="training",
        source=source,
        num_gallery=len(training),
        queries=np.empty(0, np.int64),
        boxes=np.empty((0, 4)),
        ground_truth=GroundTruth(nothing, nothing, nothing),
        crop="none",
        digest=fingerprint.hexdigest()[:16],
        measure=RevisitedMeasure(),
    )


def probes_of(benchmark: Benchmark, parts: Collection[str]) -> NDArray[np.int64]:
    """Positions of the images that show a benchmark's landmarks, ascending: queries, positives, or both.

    If the gallery is the training set, its positives are training images themselves, so only queries are used.
    """
    truth = benchmark.ground_truth
    found = [benchmark.queries] if "queries" in parts else []
    if "positives" in parts and not benchmark.gallery_is_training:
        found += [*truth.easy, *truth.hard]
    return np.unique(np.concatenate([np.empty(0, np.int64), *found]))


class Pairs(NamedTuple):
    """Positions of the probes and training images to compare, and the cosines of their descriptors; (P,) each."""

    probes: NDArray[np.int64]
    images: NDArray[np.int64]
    cosines: NDArray[np.float32]


def nearest_pairs(
    gallery: NDArray[np.floating],
    available: NDArray[np.bool_],
    queries: NDArray[np.float32],
    probes: NDArray[np.int64],
    rule: Rule,
) -> Pairs:
    """The first images of each probe's ranking whose cosine is large enough.

    Args:
        gallery: (N, D) descriptors of the training images; `available`, (N,), says which exist.
        queries: (Q, D) descriptors of the probes at the positions `probes`, (Q,).
        rule: the number of candidates, and the smallest cosine.
    """
    nothing = [np.empty(0, np.int64)] * len(queries)
    found = exact_ranking(gallery, queries, nothing, min(rule.candidates, len(gallery)), available)
    rows, columns = np.nonzero((found.top_k >= 0) & (found.scores >= rule.threshold))
    return Pairs(probes[rows], found.top_k[rows, columns], found.scores[rows, columns])


def verify_pairs(
    pairs: Pairs,
    probes: Callable[[int], LocalFeatures],
    images: Callable[[int], LocalFeatures],
    spatial: Spatial,
    inliers: int,
    benchmark: int = 0,
) -> list[Overlap]:
    """The pairs with enough local matches that agree on one geometry, in the given order."""
    rows = zip(pairs.probes.tolist(), pairs.images.tolist(), pairs.cosines.tolist(), strict=True)
    found = []
    for probe, image, cosine in track(rows, "comparing", len(pairs.probes), "pairs"):
        count = spatial.verified(probes(probe), images(image)).count
        if count >= inliers:
            found.append(Overlap(benchmark, probe, image, cosine, count))
    return found


def _candidates(
    extractor: FeatureExtractor,
    gallery: Benchmark,
    sets: Sequence[Benchmark],
    probes: Sequence[NDArray[np.int64]],
    rule: Rule,
) -> list[Pairs]:
    """The pairs to compare for each benchmark, the same in all processes."""

    def descriptors(benchmark: Benchmark) -> ExtractedFeatures:
        found = extractor.descriptors(benchmark)
        if found.bad and extractor.main:
            named = truncate_list([f"{image.name} ({image.reason})" for image in found.bad], 3)
            print(f"{benchmark.name}: {pluralize(len(found.bad), 'image')} left out: {named}")
        return found

    own = descriptors(gallery)
    pairs = []
    for benchmark, positions in zip(sets, probes, strict=True):
        others = descriptors(benchmark)
        if extractor.main:
            readable = positions[others.available[positions]]
            rows = np.array(others.descriptors[readable])
            pairs.append(nearest_pairs(own.descriptors, own.available, rows, readable, rule))
    return extractor.trainer.strategy.broadcast(pairs)


def _about(
    audit: Audit,
    extractor: FeatureExtractor,
    spatial: Spatial,
    rule: Rule,
    probes: Sequence[NDArray[np.int64]],
    pairs: Sequence[Pairs],
) -> dict[str, object]:
    """How an audit was made, in plain values."""
    descriptors = dict(extractor.descriptor_target(audit.gallery).about)
    for key in ("benchmark", "digest", "crop"):
        del descriptors[key]
    training = audit.training
    return {
        "rule": {**asdict(rule), "probes": list(rule.probes)},
        "training": {"images": len(training), "landmarks": len(training.classes), "digest": audit.gallery.digest},
        "benchmarks": [
            {"name": b.name, "digest": b.digest, "crop": b.crop, "probes": len(own), "pairs": len(p.probes)}
            for b, own, p in zip(audit.benchmarks, probes, pairs, strict=True)
        ],
        "descriptors": descriptors,
        "features": extractor.local.config() if extractor.local else None,
        "verification": {key: value for key, value in spatial.config().items() if key not in ("rerank", "depth")},
        "found": {"landmarks": len(audit.by_landmark()), "images": len({o.image for o in audit.overlaps})},
        "caution": CAUTION,
        "versions": versions(),
    }


def _print_summary(audit: Audit, out: Path, pairs: Sequence[Pairs]) -> None:
    for number, (benchmark, own) in enumerate(zip(audit.benchmarks, pairs, strict=True)):
        part = replace(audit, overlaps=tuple(o for o in audit.overlaps if o.benchmark == number))
        print(
            f"{len(part.by_landmark()):,} of {len(audit.training.classes):,} landmarks of the training set show a "
            f"landmark of {benchmark.name} ({len({o.image for o in part.overlaps}):,} of {len(audit.training):,} "
            f"images): {len(own.probes):,} pairs compared"
        )
    print(CAUTION)
    if not audit.by_landmark():
        return
    print(f"look at {out / SHEET}")
    if audit.ids_listed:
        print(f"data.exclude_landmarks={out / LANDMARKS} leaves these landmarks out of training")
    else:
        print(f"{out / IMAGES} names the images: move them out of the training folder")

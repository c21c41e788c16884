"""Leak audit: training images that show what a benchmark's queries show (descriptors, then RANSAC)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, InputError, TrainingSet
from src.data.preparation.lock import preparing
from src.evaluation.describer import Described, Describer
from src.evaluation.overlap_files import IMAGES, LANDMARKS, SHEET, Audit, write_audit
from src.evaluation.overlap_search import Pairs, Rule, nearest, verified
from src.evaluation.overlap_sets import as_benchmark, probes_of
from src.results.provenance import versions
from src.retrieval.rerank.spatial import Spatial

CAUTION = (
    "a detector's findings: it misses images that share too little with every probe, and may take a look-alike for the "
    "landmark; the contact sheet is for a person to look at"
)


def find_overlap(
    training: TrainingSet,
    benchmarks: Sequence[Callable[[], Benchmark] | None],
    describer: Describer,
    spatial: Spatial,
    rule: Rule,
    out: str | Path,
) -> Audit | None:
    """Find training images that show what benchmarks show, and write to `out` what was found (see `write_audit`).

    Each probe of a benchmark is compared with the training images nearest by descriptor; those are overlaps that have
    enough local matches on one geometry.

    Returns what was found, in the main process; None in the others.
    Raises InputError without a benchmark or a probe, and as the parts do.
    """
    out = Path(out)
    sets = [build() for build in benchmarks if build is not None]
    if not sets:
        raise InputError("an audit compares the training images with a benchmark: give benchmark=NAME")
    probes = [probes_of(benchmark, rule.probes) for benchmark in sets]
    for benchmark, found in zip(sets, probes, strict=True):
        if not len(found):
            raise InputError(f"{benchmark.name} has no image to compare with (probes={list(rule.probes)})")
    with preparing(out) if describer.main else nullcontext():
        gallery = as_benchmark(training)
        pairs = _nearest(describer, gallery, sets, probes, rule)
        local = [describer.features(b, np.unique(p.probes)).features for b, p in zip(sets, pairs, strict=True)]
        images = describer.features(gallery, np.unique(np.concatenate([p.images for p in pairs]))).features
        if not describer.main:
            return None
        overlaps = [
            overlap
            for number, (features, own) in enumerate(zip(local, pairs, strict=True))
            for overlap in verified(own, features, images, spatial, rule.inliers, number)
        ]
        audit = Audit(training, gallery, tuple(sets), tuple(overlaps), rule.images)
        write_audit(out, audit, _about(audit, describer, spatial, rule, probes, pairs))
        _say(audit, out, pairs)
    return audit


def _nearest(
    describer: Describer, gallery: Benchmark, sets: Sequence[Benchmark], probes: Sequence[NDArray[np.int64]], rule: Rule
) -> list[Pairs]:
    """The pairs to be compared of each benchmark, the same in all processes."""
    own = _described(describer, gallery)
    pairs = []
    for benchmark, positions in zip(sets, probes, strict=True):
        others = _described(describer, benchmark)
        if describer.main:
            readable = positions[others.known[positions]]
            rows = np.array(others.descriptors[readable])
            pairs.append(nearest(own.descriptors, own.known, rows, readable, rule))
    return describer.trainer.strategy.broadcast(pairs)


def _described(describer: Describer, benchmark: Benchmark) -> Described:
    found = describer.descriptors(benchmark)
    if found.bad and describer.main:
        print(f"{benchmark.name}: {len(found.bad):,} images cannot be read and are left out ({found.bad[0].name})")
    return found


def _about(
    audit: Audit,
    describer: Describer,
    spatial: Spatial,
    rule: Rule,
    probes: Sequence[NDArray[np.int64]],
    pairs: Sequence[Pairs],
) -> dict[str, object]:
    """How an audit was made, in plain values."""
    sink = describer.sink(audit.gallery)
    apart = ("benchmark", "digest", "crop")
    training = {"images": len(audit.training), "landmarks": len(audit.training.classes), "digest": audit.gallery.digest}
    return {
        "rule": {**asdict(rule), "probes": list(rule.probes)},
        "training": training,
        "benchmarks": [
            {"name": b.name, "digest": b.digest, "crop": b.crop, "probes": len(own), "pairs": len(p.probes)}
            for b, own, p in zip(audit.benchmarks, probes, pairs, strict=True)
        ],
        "descriptors": {key: value for key, value in sink.about.items() if key not in apart},
        "features": describer.local.describe() if describer.local else None,
        "verification": {key: value for key, value in spatial.describe().items() if key not in ("rerank", "depth")},
        "found": {"landmarks": len(audit.by_landmark()), "images": len({o.image for o in audit.overlaps})},
        "caution": CAUTION,
        "versions": versions(),
    }


def _say(audit: Audit, out: Path, pairs: Sequence[Pairs]) -> None:
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

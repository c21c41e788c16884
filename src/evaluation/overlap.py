"""Leak audit: training images that show what a benchmark's queries show (descriptors, then RANSAC)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, InputError, LocalFeatures, TrainingSet
from src.data.preparation.lock import preparing
from src.evaluation.overlap_files import IMAGES, LANDMARKS, SHEET, Audit, write_audit
from src.evaluation.overlap_search import Pairs, Rule, nearest, verified
from src.evaluation.overlap_sets import as_benchmark, probes_of
from src.extraction.descriptors import DescriptorSink
from src.extraction.extractor import Extractor
from src.extraction.local_store import LocalExtractor, LocalSink
from src.extraction.run import Images, extract
from src.results.provenance import versions

CAUTION = (
    "a detector's findings: it misses images that share too little with every probe, and may take a look-alike for the "
    "landmark; the contact sheet is for a person to look at"
)


@dataclass(frozen=True)
class Describer:
    """Describes sets of images in all processes of a trainer, and finds in `store` what it described before."""

    trainer: L.Trainer
    images: Images
    store: Path
    extractor: Extractor
    local: LocalExtractor

    @property
    def about(self) -> dict[str, object]:
        """What decides descriptors beside network and scales, as evaluation has it."""
        reading = {"max_side": self.images.max_side, "orientation": self.images.orientation}
        return {**reading, "precision": self.trainer.precision}

    def descriptors(self, benchmark: Benchmark) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(N, D) descriptors, mapped from a file, and (N,) which there are."""
        sink = DescriptorSink(self.store, benchmark, self.extractor, self.about)
        bad = extract(self.trainer, benchmark, sink, self.images)
        if bad and self.trainer.is_global_zero:
            print(f"{benchmark.name}: {len(bad):,} images cannot be read and are left out, the first is {bad[0].name}")
        return sink.store.descriptors, sink.store.known

    def features(self, benchmark: Benchmark, wanted: NDArray[np.int64]) -> Callable[[int], LocalFeatures]:
        """Local features of the images at the wanted positions, by position."""
        sink = LocalSink(self.store, benchmark, self.local, self.about)
        sink.wanted = wanted
        extract(self.trainer, benchmark, sink, self.images)
        return sink.features


def find_overlap(
    training: TrainingSet,
    benchmarks: Sequence[Callable[[], Benchmark] | None],
    describer: Describer,
    verify: Callable[[LocalFeatures, LocalFeatures], Any],
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
    with preparing(out) if describer.trainer.is_global_zero else nullcontext():
        gallery = as_benchmark(training)
        pairs = _nearest(describer, gallery, sets, probes, rule)
        local = [describer.features(b, np.unique(p.probes)) for b, p in zip(sets, pairs, strict=True)]
        images = describer.features(gallery, np.unique(np.concatenate([p.images for p in pairs])))
        if not describer.trainer.is_global_zero:
            return None
        overlaps = [
            overlap
            for number, (features, own) in enumerate(zip(local, pairs, strict=True))
            for overlap in verified(own, features, images, verify, rule.inliers, number)
        ]
        audit = Audit(training, gallery, tuple(sets), tuple(overlaps), rule.images)
        write_audit(out, audit, _about(audit, describer, verify, rule, probes, pairs))
        _say(audit, out, pairs)
    return audit


def _nearest(
    describer: Describer, gallery: Benchmark, sets: Sequence[Benchmark], probes: Sequence[NDArray[np.int64]], rule: Rule
) -> list[Pairs]:
    """The pairs to be compared of each benchmark, the same in all processes."""
    descriptors, known = describer.descriptors(gallery)
    pairs = []
    for benchmark, positions in zip(sets, probes, strict=True):
        others, there = describer.descriptors(benchmark)
        if describer.trainer.is_global_zero:
            readable = positions[there[positions]]
            pairs.append(nearest(descriptors, known, np.array(others[readable]), readable, rule))
    return describer.trainer.strategy.broadcast(pairs)


def _about(
    audit: Audit,
    describer: Describer,
    verify: Any,
    rule: Rule,
    probes: Sequence[NDArray[np.int64]],
    pairs: Sequence[Pairs],
) -> dict[str, object]:
    """How an audit was made, in plain values."""
    sink = DescriptorSink(describer.store, audit.gallery, describer.extractor, describer.about)
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
        "features": describer.local.describe(),
        "verification": verify.describe(),
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
    if not audit.overlaps:
        return
    print(f"look at {out / SHEET}")
    if audit.ids_listed:
        print(f"data.exclude_landmarks={out / LANDMARKS} leaves these landmarks out of training")
    else:
        print(f"{out / IMAGES} names the images: move them out of the training folder")

"""Evaluate one benchmark by one pipeline: extract, post-process, rank, re-rank, measure; and draw pictures of the
result.

Descriptors and local features of whole sets of images are computed once and kept on disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import EXTERNAL, Benchmark, ExtractedFeatures, Ranking, Resize, ScalePooling
from dolglab.data.datasets import check_whole_images
from dolglab.data.image_reading import checked_reading
from dolglab.errors import UserError
from dolglab.extraction.descriptor_store import (
    DescriptorTarget,
    FeatureTarget,
    LocalExtractor,
    LocalTarget,
    fingerprint,
    read_store,
)
from dolglab.extraction.external import AlignedDescriptors, read_descriptors
from dolglab.extraction.extract import Images, extract
from dolglab.extraction.extractor import Extractor, attention_scores, check_protocol, for_inference
from dolglab.models.dolg import DescriptorModel
from dolglab.results.pictures import attention_overlay, chosen_queries, match_figure, shown_ap
from dolglab.retrieval.pipeline import RetrievalPipeline, SearchResult
from dolglab.retrieval.rerank.spatial import Spatial

# A title and a JPEG.
Picture = tuple[str, bytes]


@dataclass(frozen=True)
class FeatureExtractor:
    """Describes sets of images in all processes of a trainer, and reuses the descriptions kept in `store`.

    Args:
        trainer: its processes describe the images.
        images: how images are read.
        store: folder in which descriptors and local features are kept.
        extractor: computes descriptors; None if none are needed.
        local: computes local features; None if none are needed.
    """

    trainer: L.Trainer
    images: Images
    store: Path
    extractor: Extractor | None = None
    local: LocalExtractor | None = None

    @property
    def main(self) -> bool:
        """Whether this process ranks and writes results."""
        return self.trainer.is_global_zero

    def descriptors(self, benchmark: Benchmark) -> ExtractedFeatures:
        """Descriptors of all images. Raises UserError without a network, and for images that cannot be read."""
        target = self.descriptor_target(benchmark)
        bad = extract(self.trainer, benchmark, target, self.images)
        store = target.store
        return ExtractedFeatures(store.available, bad, target.seconds_per_image(), descriptors=store.descriptors)

    def local_features(self, benchmark: Benchmark, wanted: NDArray[np.int64] | None = None) -> ExtractedFeatures:
        """Local features of all images, or of those at the given positions. Raises UserError like `descriptors`."""
        target = self.local_target(benchmark)
        if wanted is not None:
            target.wanted = wanted
        bad = extract(self.trainer, benchmark, target, self.images)
        available = np.zeros(len(benchmark.source), np.bool_)
        available[target.wanted] = True
        available[target.missing()] = False
        return ExtractedFeatures(
            available,
            bad,
            target.seconds_per_image(),
            target.bytes_per_image(),
            features=target.features,
            stages={"features": target.extractor.config()},
        )

    def descriptor_target(self, benchmark: Benchmark) -> DescriptorTarget:
        """Computes and keeps the descriptors of a set. Raises UserError without a network."""
        if self.extractor is None:
            raise UserError("there is no network to describe the images: set checkpoint=FILE or model=NAME")
        return DescriptorTarget(self.store, benchmark, self.extractor, self._details())

    def local_target(self, benchmark: Benchmark) -> LocalTarget:
        """Computes and keeps the local features of a set. Raises UserError if no local features are configured."""
        if self.local is None:
            raise UserError("this needs local features: set features=rootsift, or a network")
        return LocalTarget(self.store, benchmark, self.local, self._details())

    def _details(self) -> dict[str, object]:
        """Whatever determines features in addition to the extractor."""
        return {
            "max_side": self.images.max_side,
            "orientation": self.images.reading.orientation,
            "precision": self.trainer.precision,
            # Features that were kept before this option existed ignored it.
            **({} if self.images.reading.colour == "ignore" else {"colour": self.images.reading.colour}),
        }


def make_feature_extractor(
    trainer: L.Trainer,
    network: DescriptorModel | None,
    features: LocalExtractor | Callable[[DescriptorModel | None], LocalExtractor] | None,
    store: str | Path,
    scales: Sequence[float] = (1.0,),
    resize: Resize = "released",
    max_side: int | None = None,
    orientation: str = "exif",
    colour: str = "ignore",
    on_error: str = "error",
    workers: int = 0,
    scale_pooling: ScalePooling = "mean",
) -> FeatureExtractor:
    """A feature extractor whose network, if any, is ready for inference; `features` may be the network's own.

    Raises UserError for invalid values.
    """
    check_protocol(scales, resize, scale_pooling)
    check_whole_images(max_side, on_error)
    if not isinstance(workers, int) or workers < 0:
        raise UserError(f"workers must be a whole number from 0, not {workers}")
    reading = checked_reading(orientation, colour)
    inference = None if network is None else for_inference(network, str(trainer.precision))
    local = features if features is None or isinstance(features, LocalExtractor) else features(inference)
    images = Images(max_side, on_error == "skip", reading, workers)
    extractor = None if inference is None else Extractor(inference, scales, resize, scale_pooling=scale_pooling)
    return FeatureExtractor(trainer, images, Path(store), extractor, local)


@dataclass(frozen=True)
class Evaluator:
    """Describes a benchmark's images in all processes of a trainer, ranks its gallery, and measures the ranking.

    Args:
        extractor: computes descriptors and local features; the main process of its trainer ranks.
        pipeline: post-processing, ranking and re-ranking.
        learn_on: images from which whitening or a codebook is learned, unless they are given as files.
        external: a file of descriptors, or the folder of a kept store, to measure instead of the extractor's.
        names: a file with the names of that file's rows.

    Raises UserError if something must be learned and there are no images to learn it from.
    """

    extractor: FeatureExtractor
    pipeline: RetrievalPipeline = field(default_factory=RetrievalPipeline)
    learn_on: Benchmark | None = None
    external: Path | None = None
    names: Path | None = None

    def __post_init__(self) -> None:
        if self.learn_on is None and self._has_to_learn():
            aggregated = self.pipeline.aggregate is not None
            name, file = ("codebook", "aggregate.codebook") if aggregated else ("whitening", "post.whitening.matrix")
            raise UserError(f"there is no {name} yet: set {file}=FILE, or benchmark@learn_on=NAME to learn one")

    def run(self, benchmark: Benchmark, given: AlignedDescriptors | None = None) -> Ranking | None:
        """The figures, in the main process; None in the others, which describe their share of the images.

        `given` are the descriptors in the file `external`, if they were read before.

        Raises UserError for images that cannot be read, and for anything a part of the pipeline refuses.
        """
        start = time.perf_counter()
        for step in self.pipeline.whitenings:
            step.check_network(self._network)
        found = self._extract(benchmark, given)
        self._learn()
        result = self.pipeline.search(found, benchmark) if self.extractor.main else None
        local = self._shortlist_features(result, benchmark)
        if result is None:
            return None
        return self.pipeline.measure(result, benchmark, found, local, time.perf_counter() - start)

    def targets(self, benchmark: Benchmark) -> list[tuple[Benchmark, FeatureTarget]]:
        """The sets of images that `run` describes, and how; a re-ranker's answers are not known yet and only counted.

        Raises UserError like `run`, as far as possible before any image is read.
        """
        sets = [benchmark, *([self.learn_on] if self.learn_on is not None and self._has_to_learn() else [])]
        if self.pipeline.aggregate is not None:
            return [(images, self.extractor.local_target(images)) for images in sets]
        found: list[tuple[Benchmark, FeatureTarget]] = []
        if self.external is None:
            found += [(images, self.extractor.descriptor_target(images)) for images in sets]
        if self.pipeline.rerank is not None and self.pipeline.rerank.local:
            target = self.extractor.local_target(benchmark)
            target.wanted = target.wanted[: len(benchmark.queries) * (1 + self.pipeline.rerank.depth)]
            found.append((benchmark, target))
        return found

    @property
    def _network(self) -> str:
        """Fingerprint of the network; empty if the descriptors come from a file."""
        extractor = self.extractor.extractor
        return fingerprint(extractor.model) if extractor and self.external is None else ""

    def _extract(self, benchmark: Benchmark, given: AlignedDescriptors | None = None) -> ExtractedFeatures:
        """The features of a benchmark's images that the pipeline's search needs."""
        if self.pipeline.aggregate is not None:
            return self.extractor.local_features(benchmark)
        if self.external is None:
            return self.extractor.descriptors(benchmark)
        everything = np.ones(len(benchmark.source), np.bool_)
        if not self.extractor.main:
            # Other processes do not need them.
            return ExtractedFeatures(everything)
        if self.external.is_dir():
            extractor = self.extractor.extractor
            store = read_store(self.external, benchmark, extractor and fingerprint(extractor.model))
            stages = {EXTERNAL: f"kept in {self.external.name}"}
            return ExtractedFeatures(store.available, descriptors=store.descriptors, stages=stages)
        found = given or read_descriptors(self.external, benchmark, self.names)
        return ExtractedFeatures(everything, descriptors=found.descriptors, stages={EXTERNAL: found.note})

    def _has_to_learn(self) -> bool:
        """Whether a part of the pipeline must be learned because no file was given for it."""
        parts = [*self.pipeline.whitenings, *([self.pipeline.aggregate] if self.pipeline.aggregate else [])]
        return any(part.learned_on is None for part in parts)

    def _learn(self) -> None:
        """Learn the parts of the pipeline that need it; all processes describe the images of the other set."""
        if self.learn_on is None or not self._has_to_learn():
            return
        found = self._extract(self.learn_on)
        if not self.extractor.main:
            return
        name, digest = self.learn_on.name, self.learn_on.digest
        if self.pipeline.aggregate is not None:
            positions = np.flatnonzero(found.available).tolist()
            self.pipeline.aggregate.learn((found.features(p).descriptors for p in positions), name, digest)
        pairs = matching_pairs(self.learn_on)
        for step in self.pipeline.whitenings:
            if step.learned_on is None:
                step.learn(found.descriptors, pairs, name, digest, self._network)

    def _shortlist_features(self, result: SearchResult | None, benchmark: Benchmark) -> ExtractedFeatures | None:
        """Local features of the images that the re-ranker needs, or None."""
        reranker = self.pipeline.rerank
        if reranker is None or not reranker.local:
            return None
        wanted = None if result is None else self.pipeline.shortlisted(result, benchmark)
        return self.extractor.local_features(benchmark, self.extractor.trainer.strategy.broadcast(wanted))


def matching_pairs(benchmark: Benchmark) -> NDArray[np.int64]:
    """(P, 2) positions of each query's image and each of its positives, easy or hard."""
    truth = benchmark.ground_truth
    parts = [
        np.stack([np.full(len(easy) + len(hard), query), np.concatenate([easy, hard])], axis=1)
        for query, easy, hard in zip(benchmark.queries.tolist(), truth.easy, truth.hard, strict=True)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 2), np.int64)


def pictures_of(evaluator: Evaluator, ranking: Ranking, count: int) -> list[Picture]:
    """Inlier matches, and where the network looks, for `count` queries, from the best AP to the worst; main process."""
    reranker, extractor = evaluator.pipeline.rerank, evaluator.extractor.extractor
    pictures, bad = [], {image.name for image in ranking.bad}
    # An external network may compute descriptors only, without attention.
    looking = None if extractor is None or not getattr(extractor.model.backbone, "has_maps", True) else extractor.model
    for query in chosen_queries(shown_ap(ranking), count) if count else []:
        if isinstance(reranker, Spatial):
            pictures += _matches(evaluator, reranker, ranking, query)
        position = int(ranking.benchmark.queries[query])
        if looking is not None and ranking.benchmark.source.name(position) not in bad:
            # The query as it was described, at its original size.
            image = _pixels(evaluator, ranking.benchmark, position)
            picture = attention_overlay(image, attention_scores(looking, image))
            pictures.append((f"Attention in {ranking.benchmark.source.name(position)}", picture))
    return pictures


def _matches(evaluator: Evaluator, spatial: Spatial, ranking: Ranking, query: int) -> list[Picture]:
    """The query and the first answer after re-ranking, with the matches that agree with one transformation."""
    benchmark = ranking.benchmark
    image = int(benchmark.queries[query])
    answer = next((int(p) for p in ranking.top[query, :2] if p >= 0 and p != image), None)
    if answer is None:
        return []
    ours, theirs = map(evaluator.extractor.local_target(benchmark).features, (image, answer))
    match = spatial.verified(ours, theirs)
    photos = _pixels(evaluator, benchmark, image), _pixels(evaluator, benchmark, answer)
    title = f"Matches of {benchmark.source.name(image)} and {benchmark.source.name(answer)}"
    return [(title, match_figure(*photos, ours, theirs, match.matches, match.inlier))]


def _pixels(evaluator: Evaluator, benchmark: Benchmark, position: int) -> NDArray[np.uint8]:
    return evaluator.extractor.images.of(benchmark).__getitems__([position]).images[0].numpy()

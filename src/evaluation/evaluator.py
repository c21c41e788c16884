"""One benchmark through one method, in all the trainer's processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import numpy as np
from numpy.typing import NDArray

from src.contracts import BadImage, Benchmark, Difficulty, InputError, LocalFeatures, Ranking
from src.evaluation.figures import figures_of
from src.evaluation.learning import check_learning, learned_here, matching_pairs, wants_to_learn, whitenings
from src.evaluation.method import KEPT, Method
from src.evaluation.search import Searched, rerank, search_by_descriptors, search_by_local_features, shortlisted
from src.extraction.descriptors import DescriptorSink
from src.extraction.extractor import Extractor
from src.extraction.foreign import read_descriptors
from src.extraction.local_store import LocalExtractor, LocalSink
from src.extraction.run import Images, Sink, extract
from src.extraction.store import fingerprint, read_store, time_spent
from src.retrieval.ranking import Ranked

ORACLE = "oracle shortlist: junk was taken out with the ground truth before re-ranking"


@dataclass(frozen=True)
class Given:
    """A file of descriptors that somebody else made, and one with the names of its rows; or a kept store's folder."""

    file: Path
    names: Path | None = None


@dataclass(frozen=True)
class Described:
    """What is there of a benchmark's images: which of them, those that could not be read, and what one took.

    `descriptors` are (images, D) where there are any, `features` those of the image at a position.
    """

    known: NDArray[np.bool_]
    bad: tuple[BadImage, ...] = ()
    seconds: float = 0.0
    bytes: float = 0.0
    descriptors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    features: Callable[[int], LocalFeatures] | None = None
    stages: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluator:
    """Describes a benchmark's images, ranks its gallery, and measures the ranking.

    Args:
        trainer: whose processes describe the images; the main one ranks.
        images: how images are read.
        store: folder in which descriptors are kept, and found again.
        method: what happens to descriptors.
        extractor: makes descriptors; None where only local features are wanted, or descriptors are given.
        local: makes local features, where the method asks for them.
        learn_on: images from which whitening or a codebook is learned, where no file has them.
        given: descriptors to measure instead of the extractor's.
        precision: of the network's passes, which keeps descriptors apart.

    Raises InputError where something is to be learned and there is nothing to learn it from.
    """

    trainer: L.Trainer
    images: Images
    store: Path
    method: Method = field(default_factory=Method)
    extractor: Extractor | None = None
    local: LocalExtractor | None = None
    learn_on: Benchmark | None = None
    given: Given | None = None
    precision: str = "32-true"

    def __post_init__(self) -> None:
        check_learning(self.method, self.learn_on)

    def run(self, benchmark: Benchmark) -> Ranking | None:
        """The figures, in the main process; None in the others, which take their share of the images.

        Raises InputError for images that cannot be read, and for what a part of the method refuses.
        """
        start = time.perf_counter()
        described = self._describe(benchmark)
        self._learn()
        found = self._search(described, benchmark) if self.trainer.is_global_zero else None
        looked_at = self._shortlists(found, benchmark)
        if found is None:
            return None
        return self._measure(found, described, looked_at, benchmark, start)

    def features(self, benchmark: Benchmark, wanted: NDArray[np.int64] | None = None) -> Described:
        """Local features of a benchmark's images, or of those at some positions; to be called in all processes."""
        if self.local is None:
            raise InputError("this asks for local features: give features=rootsift, or a network")
        sink = LocalSink(self.store, benchmark, self.local, self._about())
        if wanted is not None:
            sink.wanted = wanted
        bad = self._extract(benchmark, sink)
        known = np.zeros(len(benchmark.source), np.bool_)
        known[sink.wanted] = True
        known[sink.missing()] = False
        return Described(
            known,
            bad,
            _seconds_each(sink.folder),
            sink.bytes_each(),
            features=sink.features,
            stages={"features": self.local.describe()},
        )

    def kept_features(self, benchmark: Benchmark) -> Callable[[int], LocalFeatures]:
        """The local features that are there already, by position."""
        assert self.local is not None
        return LocalSink(self.store, benchmark, self.local, self._about()).features

    def _describe(self, benchmark: Benchmark) -> Described:
        """What the method's search wants of a benchmark's images."""
        return self.features(benchmark) if self.method.aggregate else self._descriptors(benchmark)

    def _descriptors(self, benchmark: Benchmark) -> Described:
        if self.given is not None:
            return self._given(self.given, benchmark)
        if self.extractor is None:
            raise InputError("there is no network to describe the images with: give checkpoint=FILE or model=NAME")
        sink = DescriptorSink(self.store, benchmark, self.extractor, self._about())
        bad = self._extract(benchmark, sink)
        store = sink.store
        return Described(store.known, bad, _seconds_each(sink.folder), descriptors=store.descriptors)

    def _given(self, given: Given, benchmark: Benchmark) -> Described:
        """Descriptors from a file, or from a folder that an evaluation kept; other processes do not want them."""
        if not self.trainer.is_global_zero:
            return Described(np.ones(len(benchmark.source), np.bool_))
        if given.file.is_dir():
            store = read_store(given.file, benchmark, self.extractor and fingerprint(self.extractor.model))
            return Described(store.known, descriptors=store.descriptors, stages={"descriptors": given.file.name})
        found = read_descriptors(given.file, benchmark, given.names)
        known = np.ones(len(benchmark.source), np.bool_)
        return Described(known, descriptors=found.descriptors, stages={"descriptors": found.note})

    def _extract(self, benchmark: Benchmark, sink: Sink) -> tuple[BadImage, ...]:
        return extract(self.trainer, benchmark, sink, self.images)

    def _learn(self) -> None:
        """Learn what the method still has to; the other set's images are described by all processes."""
        if self.learn_on is None or not wants_to_learn(self.method):
            return
        described = self._describe(self.learn_on)
        if not self.trainer.is_global_zero:
            return
        name, digest = self.learn_on.name, self.learn_on.digest
        if self.method.aggregate is not None:
            features = _of(described)
            there = np.flatnonzero(described.known).tolist()
            self.method.aggregate.learn((features(position).descriptors for position in there), name, digest)
        descriptors, pairs = described.descriptors, matching_pairs(self.learn_on)
        for step in whitenings(self.method):
            if step.learned_on is None:
                step.learn(descriptors, pairs, name, digest)

    def _search(self, described: Described, benchmark: Benchmark) -> Searched:
        if self.method.aggregate is None:
            return search_by_descriptors(described.descriptors, described.known, benchmark, self.method)
        kept = self.method.kept(benchmark)
        return search_by_local_features(_of(described), described.known, benchmark, self.method.aggregate, kept)

    def _shortlists(self, found: Searched | None, benchmark: Benchmark) -> Described | None:
        """Local features of the images that the re-ranker will look at, where it looks at any."""
        reranker = self.method.rerank
        if reranker is None or not reranker.local:
            return None
        wanted = None if found is None else shortlisted(found, benchmark, reranker, self.method.oracle)
        return self.features(benchmark, self.trainer.strategy.broadcast(wanted))

    def _measure(
        self, found: Searched, described: Described, looked_at: Described | None, benchmark: Benchmark, start: float
    ) -> Ranking:
        reranker = self.method.rerank
        notes = [*found.notes, *learned_here(self.method, benchmark)]
        stages = {**described.stages, **found.stages}
        rankings: dict[Difficulty, Ranked] = dict.fromkeys(benchmark.difficulties, found.ranked)
        clock = time.perf_counter()
        if reranker is not None:
            stages["rerank"] = reranker.describe()
            local = _of(looked_at) if looked_at else _no_features
            if self.method.oracle:
                notes.append(ORACLE)
                rankings = {d: rerank(found, benchmark, reranker, local, d) for d in benchmark.difficulties}
            else:
                again = rerank(found, benchmark, reranker, local)
                rankings = dict.fromkeys(benchmark.difficulties, again)
        seconds = found.seconds + (time.perf_counter() - clock) / len(benchmark.queries)
        extra = looked_at or Described(described.known)
        stages |= extra.stages
        figures = figures_of(benchmark, rankings)
        shown = rankings["medium" if "medium" in rankings else benchmark.difficulties[0]]
        costs = {"query_seconds": seconds, "image_bytes": found.bytes + extra.bytes}
        # Of rankings by local features, those for the shortlist are the same ones.
        if image_seconds := described.seconds + (0 if self.method.aggregate else extra.seconds):
            costs["image_seconds"] = image_seconds
        return Ranking(
            benchmark=benchmark,
            evaluation=figures.evaluation,
            kappas=figures.kappas,
            top=shown.heads[:, :KEPT],
            bad=described.bad,
            seconds=time.perf_counter() - start,
            answers=figures.answers,
            notes=tuple(notes),
            stages=stages,
            costs=costs,
            before=None if reranker is None else found.ranked.heads[:, :KEPT],
            curves=figures.curves,
        )

    def _about(self) -> dict[str, object]:
        """What decides descriptors beside network and scales."""
        return {
            "max_side": self.images.max_side,
            "orientation": self.images.orientation,
            "precision": self.precision,
        }


def _of(described: Described) -> Callable[[int], LocalFeatures]:
    assert described.features is not None
    return described.features


def _no_features(position: int) -> LocalFeatures:
    raise RuntimeError("this re-ranker said that it looks at no local features")


def _seconds_each(folder: Path) -> float:
    images, seconds = time_spent(folder)
    return seconds / images if images else 0.0

"""One benchmark through one method, in all the trainer's processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, Difficulty, Evaluation, GLDv2Benchmark, Ranking
from dolglab.errors import UserError
from dolglab.evaluation.describer import Described, Describer, no_features
from dolglab.evaluation.search import (
    KEPT,
    Method,
    Searched,
    rerank,
    search_by_descriptors,
    search_by_local_features,
    shortlisted,
)
from dolglab.extraction.descriptor_store import fingerprint, read_store
from dolglab.extraction.external import read_descriptors
from dolglab.retrieval.gldv2_metrics import gldv2_figures
from dolglab.retrieval.metrics import curve_at, scores_at
from dolglab.retrieval.ranking import Ranked
from dolglab.retrieval.whitening import Whitening


def matching_pairs(benchmark: Benchmark) -> NDArray[np.int64]:
    """(P, 2) positions of a query's image and of one of its positives, easy or hard."""
    truth = benchmark.ground_truth
    parts = [
        np.stack([np.full(len(easy) + len(hard), query), np.concatenate([easy, hard])], axis=1)
        for query, easy, hard in zip(benchmark.queries.tolist(), truth.easy, truth.hard, strict=True)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 2), np.int64)


def whitenings(method: Method) -> Iterator[Whitening]:
    """The method's steps that whiten."""
    return (step for step in method.post.values() if isinstance(step, Whitening))


def wants_to_learn(method: Method) -> bool:
    """Whether a part of the method was given no file of what it has to learn."""
    codebook = method.aggregate is not None and method.aggregate.learned_on is None
    return codebook or any(step.learned_on is None for step in whitenings(method))


def learned_here(method: Method, benchmark: Benchmark) -> tuple[str, ...]:
    """A note for each part that was learned on the very set it is tested on."""
    parts = [("whitening", step.learned_on) for step in whitenings(method)]
    if method.aggregate is not None:
        parts.append(("codebook", method.aggregate.learned_on))
    return tuple(f"{part} learned on this set" for part, origin in parts if origin and origin[1] == benchmark.digest)


def check_learning(method: Method, learn_on: Benchmark | None) -> None:
    """Raise UserError where something is to be learned and there is nothing to learn it from."""
    if learn_on is None and wants_to_learn(method):
        name, file = ("codebook", "aggregate.codebook") if method.aggregate else ("whitening", "post.whitening.matrix")
        raise UserError(f"there is no {name} yet: give {file}=FILE, or benchmark@learn_on=NAME to learn one")


KAPPAS = (1, 5, 10)


@dataclass(frozen=True)
class Figures:
    """What was measured: see `Ranking`, whose fields these are."""

    evaluation: Evaluation
    kappas: Sequence[int] = KAPPAS
    answers: tuple[tuple[int, int, float], ...] = ()
    curves: Mapping[Difficulty, NDArray[np.float64]] = field(default_factory=dict)


def figures_of(benchmark: Benchmark, rankings: Mapping[Difficulty, Ranked]) -> Figures:
    """The figures of a benchmark's rankings, which may be another at each difficulty."""
    if isinstance(benchmark, GLDv2Benchmark):
        evaluation, answers = gldv2_figures(benchmark, rankings[benchmark.difficulties[0]])
        return Figures(evaluation, (), answers)
    truth = benchmark.ground_truth
    return Figures(
        evaluation={d: scores_at(d, ranked, truth, KAPPAS) for d, ranked in rankings.items()},
        curves={d: curve_at(d, ranked, truth) for d, ranked in rankings.items()},
    )


ORACLE = "oracle shortlist: junk was taken out with the ground truth before re-ranking"


@dataclass(frozen=True)
class Given:
    """A file of descriptors that somebody else made, and one with the names of its rows; or a kept store's folder."""

    file: Path
    names: Path | None = None


@dataclass(frozen=True)
class Evaluator:
    """Describes a benchmark's images, ranks its gallery, and measures the ranking.

    Args:
        describer: makes descriptors and local features; its trainer's main process ranks.
        method: what happens to descriptors.
        learn_on: images from which whitening or a codebook is learned, where no file has them.
        given: descriptors to measure instead of the describer's.

    Raises UserError where something is to be learned and there is nothing to learn it from.
    """

    describer: Describer
    method: Method = field(default_factory=Method)
    learn_on: Benchmark | None = None
    given: Given | None = None

    def __post_init__(self) -> None:
        check_learning(self.method, self.learn_on)

    def run(self, benchmark: Benchmark) -> Ranking | None:
        """The figures, in the main process; None in the others, which take their share of the images.

        Raises UserError for images that cannot be read, and for what a part of the method refuses.
        """
        start = time.perf_counter()
        for step in whitenings(self.method):
            step.check_network(self._network)
        described = self._describe(benchmark)
        self._learn()
        found = self._search(described, benchmark) if self.describer.main else None
        looked_at = self._shortlists(found, benchmark)
        if found is None:
            return None
        return self._measure(found, described, looked_at, benchmark, start)

    @property
    def _network(self) -> str:
        """Fingerprint of what describes the images; empty where a file has the descriptors."""
        extractor = self.describer.extractor
        return fingerprint(extractor.model) if extractor and self.given is None else ""

    def _describe(self, benchmark: Benchmark) -> Described:
        """What the method's search wants of a benchmark's images."""
        if self.method.aggregate is not None:
            return self.describer.features(benchmark)
        return self.describer.descriptors(benchmark) if self.given is None else self._given(self.given, benchmark)

    def _given(self, given: Given, benchmark: Benchmark) -> Described:
        """Descriptors from a file, or from a folder that an evaluation kept; other processes do not want them."""
        if not self.describer.main:
            return Described(np.ones(len(benchmark.source), np.bool_))
        if given.file.is_dir():
            extractor = self.describer.extractor
            store = read_store(given.file, benchmark, extractor and fingerprint(extractor.model))
            return Described(store.known, descriptors=store.descriptors, stages={"descriptors": given.file.name})
        found = read_descriptors(given.file, benchmark, given.names)
        known = np.ones(len(benchmark.source), np.bool_)
        return Described(known, descriptors=found.descriptors, stages={"descriptors": found.note})

    def _learn(self) -> None:
        """Learn what the method still has to; the other set's images are described by all processes."""
        if self.learn_on is None or not wants_to_learn(self.method):
            return
        described = self._describe(self.learn_on)
        if not self.describer.main:
            return
        name, digest = self.learn_on.name, self.learn_on.digest
        if self.method.aggregate is not None:
            features = described.features
            there = np.flatnonzero(described.known).tolist()
            self.method.aggregate.learn((features(position).descriptors for position in there), name, digest)
        descriptors, pairs = described.descriptors, matching_pairs(self.learn_on)
        for step in whitenings(self.method):
            if step.learned_on is None:
                step.learn(descriptors, pairs, name, digest, self._network)

    def _search(self, described: Described, benchmark: Benchmark) -> Searched:
        if self.method.aggregate is None:
            return search_by_descriptors(described.descriptors, described.known, benchmark, self.method)
        kept = self.method.kept(benchmark)
        return search_by_local_features(described.features, described.known, benchmark, self.method.aggregate, kept)

    def _shortlists(self, found: Searched | None, benchmark: Benchmark) -> Described | None:
        """Local features of the images that the re-ranker will look at, where it looks at any."""
        reranker = self.method.rerank
        if reranker is None or not reranker.local:
            return None
        wanted = None if found is None else shortlisted(found, benchmark, reranker, self.method.oracle)
        return self.describer.features(benchmark, self.describer.trainer.strategy.broadcast(wanted))

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
            local = looked_at.features if looked_at else no_features
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

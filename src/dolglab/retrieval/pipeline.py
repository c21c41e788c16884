"""Compute a benchmark's figures from the features of its images: post-process, rank, re-rank, measure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import (
    Benchmark,
    Difficulty,
    ExtractedFeatures,
    LocalFeatures,
    Ranked,
    Ranking,
    Reranker,
    Shortlist,
    no_features,
)
from dolglab.errors import UserError
from dolglab.measures import ground_truth_ids_of, ignored_of
from dolglab.retrieval.adapter import ApplyAdapter
from dolglab.retrieval.asmk import ASMK
from dolglab.retrieval.index import FlatIndex, Index, recall
from dolglab.retrieval.ranking import exact_ranking, gallery_ranking, listed_ranking, reranked
from dolglab.retrieval.whitening import Whitening

# The number of answers per query that a `Ranking` keeps, for pictures and files.
ANSWERS = 100
RECALLS = (10, 100)
ORACLE = "oracle shortlist: junk was removed by the ground truth before re-ranking"
ADAPTED = "adapted: too optimistic if the adapter was learnt from photos of this set"
APPROXIMATE = "approximate index: images that it does not return count as not found, so figures are lower bounds"


@runtime_checkable
class PostProcessing(Protocol):
    """Changes descriptors: gallery (N, D), queries (Q, D), and which gallery images are available, (N,)."""

    def __call__(
        self, gallery: NDArray[np.float32], queries: NDArray[np.float32], available: NDArray[np.bool_] | None = None, /
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...

    def config(self) -> dict[str, object]:
        """The description for result cards."""
        ...


@dataclass(frozen=True)
class SearchResult:
    """Rankings of a gallery, and the data that a re-ranker may need.

    `gallery` (N, D) and `queries` (Q, D) are the ranked descriptors; rankings by local features have none. `bytes` is
    the size of a gallery image, `seconds` the time of a query, `stages` the description for result cards.
    """

    ranked: Ranked
    bytes: float
    seconds: float
    gallery: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    queries: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    stages: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RetrievalPipeline:
    """Computes figures from the features of images, in one process.

    Args:
        index: constructor of the gallery's index; an approximate one gives a lower bound of the figures.
        post: steps of post-processing of descriptors, in this order.
        rerank: reorders each query's first answers.
        aggregate: ranks by aggregated local features instead of by descriptors.
        oracle: remove junk from the re-ranker's shortlist by the ground truth, as published tables do.

    Raises UserError for parts that cannot be combined.
    """

    index: Callable[[], Index] = FlatIndex
    post: Mapping[str, PostProcessing] = field(default_factory=dict)
    rerank: Reranker | None = None
    aggregate: ASMK | None = None
    oracle: bool = False

    def __post_init__(self) -> None:
        if self.oracle and self.rerank is None:
            raise UserError("oracle=true needs a re-ranker: set rerank=NAME too")
        if self.aggregate is None:
            return
        if self.post or not self.index().exact:
            raise UserError("aggregate=asmk ranks by local features: post=... and index=... need descriptors")
        if self.rerank is not None and not self.rerank.local:
            raise UserError("aggregate=asmk has no descriptors to re-rank with: use rerank=spatial, or none")

    @property
    def local(self) -> bool:
        """Whether it needs local features."""
        return self.aggregate is not None or (self.rerank is not None and self.rerank.local)

    @property
    def whitenings(self) -> list[Whitening]:
        """The whitening steps."""
        return [step for step in self.post.values() if isinstance(step, Whitening)]

    @property
    def adapters(self) -> list[ApplyAdapter]:
        """The steps that are only for the descriptors of one network."""
        return [step for step in self.post.values() if isinstance(step, ApplyAdapter)]

    def save(self, folder: Path) -> None:
        """Write whitening matrices and codebook, learned or given, as `NAME.safetensors` for other evaluations."""
        for name, step in self.post.items():
            if isinstance(step, Whitening):
                step.save(folder / f"{name}.safetensors")
        if self.aggregate is not None:
            self.aggregate.save(folder / "codebook.safetensors")

    def search(self, found: ExtractedFeatures, benchmark: Benchmark) -> SearchResult:
        """Rank a benchmark's gallery for each of its queries."""
        if self.aggregate is None:
            return self._rank_by_descriptors(found, benchmark)
        return self._rank_by_local_features(self.aggregate, found, benchmark)

    def shortlisted(self, result: SearchResult, benchmark: Benchmark) -> NDArray[np.int64]:
        """Positions of all images whose local features the re-ranker needs: queries, and their first answers."""
        assert self.rerank is not None
        answers = [
            result.ranked.top_k[query, _shortlist_ranks(result.ranked, query, benchmark, self.rerank.depth, difficulty)]
            for difficulty in (benchmark.difficulties if self.oracle else (None,))
            for query in range(len(benchmark.queries))
        ]
        return np.unique(np.concatenate([benchmark.queries, *answers]))

    def measure(
        self,
        result: SearchResult,
        benchmark: Benchmark,
        found: ExtractedFeatures,
        local: ExtractedFeatures | None = None,
        seconds: float = 0.0,
    ) -> Ranking:
        """Re-rank, and measure by the benchmark's own measure.

        Args:
            result: the result of `search`.
            found: the features that were searched.
            local: local features of the images named by `shortlisted`.
            seconds: the time spent so far.
        """
        start = time.perf_counter()
        rankings = self._rerank(result, benchmark, local)
        extra = local or ExtractedFeatures(found.available)
        query_seconds = result.seconds + (time.perf_counter() - start) / max(1, len(benchmark.queries))
        figures = benchmark.measure.figures(benchmark.ground_truth, rankings)
        shown = rankings["medium" if "medium" in rankings else benchmark.difficulties[0]]
        costs = {"query_seconds": query_seconds, "image_bytes": result.bytes + extra.bytes}
        if result.gallery.size:
            costs["dimensions"] = float(result.gallery.shape[1])
        # Rankings by local features already have those of the shortlist.
        if image_seconds := found.seconds + (0 if self.aggregate else extra.seconds):
            costs["image_seconds"] = image_seconds
        stages = {**found.stages, **result.stages}
        notes = (
            *figures.notes,
            *result.notes,
            *self._learned_here(benchmark),
            *((ADAPTED,) if self.adapters else ()),
            *((ORACLE,) if self.oracle else ()),
        )
        if self.rerank is not None:
            stages["rerank"] = self.rerank.config()
        return Ranking(
            benchmark=benchmark,
            top=shown.top_k[:, :ANSWERS],
            bad=found.bad,
            seconds=seconds + time.perf_counter() - start,
            stages={**stages, **extra.stages},
            costs=costs,
            before=None if self.rerank is None else result.ranked.top_k[:, :ANSWERS],
            rankings=rankings,
            **vars(replace(figures, notes=notes)),
        )

    def _rank_by_descriptors(self, found: ExtractedFeatures, benchmark: Benchmark) -> SearchResult:
        size = benchmark.num_gallery
        gallery, available = found.descriptors[:size], found.available[:size]
        queries = np.array(found.descriptors[benchmark.queries])
        query_available = found.available[benchmark.queries]
        for step in self.post.values():
            gallery, queries = step(gallery, queries, available)
        index = self.index()
        wanted = benchmark.measure.ground_truth_ids(benchmark.ground_truth)
        start = time.perf_counter()
        ranked = gallery_ranking(gallery, queries, wanted, self._top_n(benchmark), available, query_available, index)
        seconds = (time.perf_counter() - start) / max(1, len(queries))
        stages: dict[str, object] = {"post": [step.config() for step in self.post.values()]} if self.post else {}
        if index.exact:
            image_bytes = float(gallery.shape[1] * gallery.dtype.itemsize)
            return SearchResult(ranked, image_bytes, seconds, gallery, queries, stages)
        nothing = [np.empty(0, np.int64)] * int(query_available.sum())
        exact = exact_ranking(gallery, queries[query_available], nothing, max(RECALLS), available).top_k
        top_k = ranked.top_k[query_available]
        # For cards about an approximate index: settings, and its recall of the nearest images.
        recalls = {f"recall@{k}": recall(top_k, exact, k) for k in RECALLS if k <= top_k.shape[1]}
        stages["index"] = {"kind": index.kind, **index.settings, "depth": index.depth, **recalls}
        return SearchResult(ranked, index.bytes_per_vector, seconds, gallery, queries, stages, (APPROXIMATE,))

    def _rank_by_local_features(self, aggregate: ASMK, found: ExtractedFeatures, benchmark: Benchmark) -> SearchResult:
        gallery = np.flatnonzero(found.available[: benchmark.num_gallery]).tolist()
        aggregate.build((position, found.features(position).descriptors) for position in gallery)
        start = time.perf_counter()

        def lists() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
            for image in benchmark.queries.tolist():
                if found.available[image]:
                    positions, scores = aggregate.rank(found.features(image).descriptors, benchmark.num_gallery)
                    available = found.available[positions]
                    yield positions[available], scores[available]
                else:
                    yield np.empty(0, np.int64), np.empty(0, np.float32)

        wanted = benchmark.measure.ground_truth_ids(benchmark.ground_truth)
        ranked = listed_ranking(lists(), wanted, self._top_n(benchmark))
        seconds = (time.perf_counter() - start) / len(benchmark.queries)
        return SearchResult(ranked, aggregate.bytes_per_image, seconds, stages={"aggregate": aggregate.config()})

    def _rerank(
        self, result: SearchResult, benchmark: Benchmark, local: ExtractedFeatures | None
    ) -> dict[Difficulty, Ranked]:
        """The rankings at each difficulty, which differ only with an oracle shortlist."""
        if self.rerank is None:
            return dict.fromkeys(benchmark.difficulties, result.ranked)
        features = local.features if local else no_features
        if not self.oracle:
            return dict.fromkeys(benchmark.difficulties, rerank(result, benchmark, self.rerank, features))
        return {d: rerank(result, benchmark, self.rerank, features, d) for d in benchmark.difficulties}

    def _top_n(self, benchmark: Benchmark) -> int:
        """The number of first answers of each query that must be kept."""
        depth = self.rerank.depth if self.rerank else 0
        if self.oracle:
            depth += max(map(len, ground_truth_ids_of(benchmark.ground_truth)), default=0)
        return min(benchmark.num_gallery, max(ANSWERS, benchmark.measure.depth, depth))

    def _learned_here(self, benchmark: Benchmark) -> list[str]:
        """A note for each part that was learned on the tested set."""
        parts = [("whitening", step.learned_on) for step in self.whitenings]
        if self.aggregate is not None:
            parts.append(("codebook", self.aggregate.learned_on))
        return [f"{part} learned on this set" for part, origin in parts if origin and origin[1] == benchmark.digest]


def rerank(
    result: SearchResult,
    benchmark: Benchmark,
    reranker: Reranker,
    local: Callable[[int], LocalFeatures] = no_features,
    difficulty: Difficulty | None = None,
) -> Ranked:
    """The rankings with their first answers reordered; with an oracle shortlist, those for one difficulty."""
    orders = {}
    described = len(result.gallery) > 0
    for query, image in enumerate(benchmark.queries.tolist()):
        at = _shortlist_ranks(result.ranked, query, benchmark, reranker.depth, difficulty)
        if not len(at):
            continue
        positions = result.ranked.top_k[query, at]
        shortlist = Shortlist(
            query_image=image,
            positions=positions,
            scores=result.ranked.scores[query, at],
            query_descriptor=result.queries[query] if described else np.empty(0, np.float32),
            descriptors=np.asarray(result.gallery[positions]) if described else np.empty((len(at), 0), np.float32),
            local=local,
        )
        # Ignored images keep their ranks, so that they are still ignored.
        order = np.arange(at[-1] + 1)
        order[at] = at[reranker(shortlist)]
        orders[query] = order
    return reranked(result.ranked, orders)


def _shortlist_ranks(
    ranked: Ranked, query: int, benchmark: Benchmark, depth: int, difficulty: Difficulty | None
) -> NDArray[np.int64]:
    """The ranks of a query's first answers, without those that a difficulty ignores."""
    head = ranked.top_k[query]
    wanted = head >= 0
    if difficulty is not None:
        wanted &= ~np.isin(head, ignored_of(difficulty, benchmark.ground_truth)[query])
    return np.flatnonzero(wanted)[:depth]

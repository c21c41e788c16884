"""Descriptors or local features to rankings, and rankings to others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, Difficulty, LocalFeatures, Reranker, Shortlist
from dolglab.errors import UserError
from dolglab.retrieval.asmk import ASMK
from dolglab.retrieval.index import FlatIndex, Index, recall
from dolglab.retrieval.metrics import ignored_of, labelled_of
from dolglab.retrieval.ranking import Ranked, exact_ranking, gallery_ranking, listed_ranking, reranked
from dolglab.retrieval.whitening import Whitening

# How many of a query's answers are kept, for pictures and files.
KEPT = 100


@runtime_checkable
class Post(Protocol):
    """Descriptors to other descriptors: gallery (N, D), queries (Q, D), and which of the gallery's there are, (N,)."""

    def __call__(
        self, gallery: NDArray[np.float32], queries: NDArray[np.float32], known: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...

    def describe(self) -> dict[str, object]:
        """What a result card says of it."""
        ...


@dataclass(frozen=True)
class Method:
    """What happens between descriptors and figures.

    Args:
        index: makes the gallery's index; an approximate one gives a lower bound of the mAP.
        post: what is done to the descriptors before, in this order.
        rerank: orders each query's first answers anew.
        aggregate: ranks by aggregated local features, instead of by descriptors.
        oracle: a re-ranker gets the first answers that are not junk by the ground truth, as published tables have it.

    Raises:
        UserError: parts that do not go together.
    """

    index: Callable[[], Index] = FlatIndex
    post: Mapping[str, Post] = field(default_factory=dict)
    rerank: Reranker | None = None
    aggregate: ASMK | None = None
    oracle: bool = False

    def __post_init__(self) -> None:
        if self.oracle and self.rerank is None:
            raise UserError("oracle=true is about a re-ranker's answers: give rerank=NAME too")
        if self.aggregate is None:
            return
        if self.post or not self.index().exact:
            raise UserError("aggregate=asmk ranks by local features: post=... and index=... are about descriptors")
        if self.rerank is not None and not self.rerank.local:
            raise UserError("aggregate=asmk has no descriptors to re-rank with: take rerank=spatial, or none")

    @property
    def local(self) -> bool:
        """Whether it asks for local features."""
        return self.aggregate is not None or (self.rerank is not None and self.rerank.local)

    def save(self, folder: Path) -> None:
        """Keep whitening matrices and codebook, learned or given, as `NAME.safetensors` for other evaluations."""
        for name, step in self.post.items():
            if isinstance(step, Whitening):
                step.save(folder / f"{name}.safetensors")
        if self.aggregate is not None:
            self.aggregate.save(folder / "codebook.safetensors")

    def kept(self, benchmark: Benchmark) -> int:
        """How many first answers of each query must be known one by one."""
        depth = self.rerank.depth if self.rerank else 0
        if self.oracle:
            truth = benchmark.ground_truth
            parts = zip(truth.easy, truth.hard, truth.junk, strict=True)
            depth += max((len(easy) + len(hard) + len(junk) for easy, hard, junk in parts), default=0)
        return min(benchmark.num_gallery, max(KEPT, depth))


RECALLS = (10, 100)


@dataclass(frozen=True)
class Searched:
    """Rankings of a gallery, and what a re-ranker may want of it.

    `gallery` (N, D) and `queries` (Q, D) are descriptors as they were ranked; of rankings by local features there are
    none. `bytes` is what a gallery image takes, `seconds` what a query took, `stages` what a result card says.
    """

    ranked: Ranked
    gallery: NDArray[np.float32]
    queries: NDArray[np.float32]
    bytes: float
    seconds: float
    stages: dict[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def search_by_descriptors(
    descriptors: NDArray[np.float32], known: NDArray[np.bool_], benchmark: Benchmark, method: Method
) -> Searched:
    """Post-process and rank. `descriptors` are (images, D), `known` says of which images there are any."""
    gallery, there = descriptors[: benchmark.num_gallery], known[: benchmark.num_gallery]
    queries = np.array(descriptors[benchmark.queries])
    asked = known[benchmark.queries]
    for step in method.post.values():
        gallery, queries = step(gallery, queries, there)
    index = method.index()
    labelled = labelled_of(benchmark.ground_truth)
    start = time.perf_counter()
    ranked = gallery_ranking(gallery, queries, labelled, method.kept(benchmark), there, asked, index)
    seconds = (time.perf_counter() - start) / max(1, len(queries))
    stages: dict[str, object] = {"post": [step.describe() for step in method.post.values()]} if method.post else {}
    size = float(gallery.shape[1] * gallery.dtype.itemsize)
    if index.exact:
        return Searched(ranked, gallery, queries, size, seconds, stages)
    found = exact_ranking(gallery, queries[asked], [np.empty(0, np.int64)] * int(asked.sum()), max(RECALLS), there)
    stages["index"] = about_index(index, ranked.heads[asked], found.heads)
    note = "approximate index: what it does not find counts as missed, a lower bound"
    return Searched(ranked, gallery, queries, index.bytes_per_vector, seconds, stages, (note,))


def about_index(index: Index, heads: NDArray[np.int64], exact: NDArray[np.int64]) -> dict[str, object]:
    """What a card says of an approximate index: settings, and the share of the nearest images that it finds."""
    found = {f"recall@{k}": recall(heads, exact, k) for k in RECALLS if k <= heads.shape[1]}
    return {"kind": index.kind, **index.settings, "depth": index.depth, **found}


def search_by_local_features(
    features: Callable[[int], LocalFeatures], known: NDArray[np.bool_], benchmark: Benchmark, aggregate: ASMK, kept: int
) -> Searched:
    """Aggregate the gallery's local features and rank by them; `features` are those of the image at a position."""
    there = np.flatnonzero(known[: benchmark.num_gallery]).tolist()
    aggregate.build((position, features(position).descriptors) for position in there)
    start = time.perf_counter()

    def lists() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for image in benchmark.queries.tolist():
            if known[image]:
                positions, scores = aggregate.rank(features(image).descriptors, benchmark.num_gallery)
                kept_there = known[positions]
                yield positions[kept_there], scores[kept_there]
            else:
                yield np.empty(0, np.int64), np.empty(0, np.float32)

    ranked = listed_ranking(lists(), labelled_of(benchmark.ground_truth), kept)
    seconds = (time.perf_counter() - start) / len(benchmark.queries)
    nothing = np.empty((0, 0), np.float32)
    return Searched(ranked, nothing, nothing, aggregate.bytes_per_image, seconds, {"aggregate": aggregate.describe()})


def shortlisted(found: Searched, benchmark: Benchmark, rerank: Reranker, oracle: bool) -> NDArray[np.int64]:
    """Positions of all images whose local features a re-ranker will ask for: queries, and their first answers."""
    difficulties = benchmark.difficulties if oracle else (None,)
    answers = [
        found.ranked.heads[query, places(found.ranked, query, benchmark, rerank.depth, difficulty)]
        for difficulty in difficulties
        for query in range(len(benchmark.queries))
    ]
    return np.unique(np.concatenate([benchmark.queries, *answers]))


def rerank(
    found: Searched,
    benchmark: Benchmark,
    reranker: Reranker,
    local: Callable[[int], LocalFeatures],
    difficulty: Difficulty | None = None,
) -> Ranked:
    """The rankings with their first answers in a new order; of an oracle's shortlist, those for one difficulty."""
    orders = {}
    for query, image in enumerate(benchmark.queries.tolist()):
        at = places(found.ranked, query, benchmark, reranker.depth, difficulty)
        if not len(at):
            continue
        positions = found.ranked.heads[query, at]
        described = len(found.gallery) > 0
        shortlist = Shortlist(
            query_image=image,
            positions=positions,
            scores=found.ranked.scores[query, at],
            query_descriptor=found.queries[query] if described else np.empty(0, np.float32),
            descriptors=np.asarray(found.gallery[positions]) if described else np.empty((len(at), 0), np.float32),
            local=local,
        )
        # Ignored images keep their places, so that they count for nothing as before.
        order = np.arange(at[-1] + 1)
        order[at] = at[reranker(shortlist)]
        orders[query] = order
    return reranked(found.ranked, orders)


def places(
    ranked: Ranked, query: int, benchmark: Benchmark, depth: int, difficulty: Difficulty | None
) -> NDArray[np.int64]:
    """Where in its head a query's shortlist stands: the first, without those that a difficulty ignores."""
    head = ranked.heads[query]
    there = head >= 0
    if difficulty is not None:
        there &= ~np.isin(head, ignored_of(difficulty, benchmark.ground_truth)[query])
    return np.flatnonzero(there)[:depth]

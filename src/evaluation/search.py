"""Descriptors or local features to rankings, and rankings to others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, Difficulty, LocalFeatures, Reranker, Shortlist
from src.evaluation.method import Method
from src.retrieval.aggregate.asmk import ASMK
from src.retrieval.index import Index, recall
from src.retrieval.metrics import ignored_of, labelled_of
from src.retrieval.ranking import Ranked, exact_ranking, gallery_ranking, listed_ranking, reranked

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

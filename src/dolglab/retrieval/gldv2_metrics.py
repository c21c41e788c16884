"""Figures of GLDv2's retrieval and recognition from descriptors, Public and Private each for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Evaluation, GLDv2Benchmark
from dolglab.retrieval.descriptors import DescriptorMetric
from dolglab.retrieval.index import FlatIndex, Index
from dolglab.retrieval.metrics import average_precision_at, gldv2_map_at_k, global_average_precision
from dolglab.retrieval.ranking import Ranked

# How many answers count in retrieval.
K = 100

# A query, the landmark it is said to show, and the score of that; and for each query the images found.
Answers = tuple[tuple[int, int, float], ...]
Found = list[NDArray[np.int64]]


class GLDv2Metric(DescriptorMetric):
    """mAP@100 of a retrieval benchmark, or GAP of a recognition benchmark, by its `measure`.

    Args:
        benchmark: queries, gallery, solution.
        dim: length of the descriptors.
        index: as for `DescriptorMetric`.

    `compute()` gives, for each usage, `map` (mAP@100 or GAP, a fraction), `ap` (each query's AP among the answers that
    are kept, NaN for queries of another usage or without positives) and an empty `mp_at_k`. Recognition also leaves
    `answers`: (query, landmark, score). A skipped query has no answer.
    """

    kappas: Sequence[int] = ()

    def __init__(
        self, benchmark: GLDv2Benchmark, dim: int, index: Callable[[], Index] = FlatIndex, **kwargs: Any
    ) -> None:
        super().__init__(benchmark.num_gallery, benchmark.queries, dim, index, benchmark.neighbours or K, **kwargs)
        self.benchmark = benchmark
        self.answers: Answers = ()

    def compute(self) -> Evaluation:
        """Rank, answer and measure. Raises UserError when images are missing."""
        ranked = self.ranking((np.empty(0, np.int64),) * len(self.queries))
        evaluation, self.answers = gldv2_figures(self.benchmark, ranked)
        return evaluation


def gldv2_figures(benchmark: GLDv2Benchmark, ranked: Ranked) -> tuple[Evaluation, Answers]:
    """The figures of rankings, as `GLDv2Metric` gives them, and of recognition the answers."""
    kept = benchmark.neighbours or K
    heads = [head[:kept] for head in ranked.heads]
    found = [head[head >= 0] for head in heads]
    answers = _answers(benchmark, found, ranked.scores) if benchmark.measure == "GAP" else ()
    ap = np.array([_ap(benchmark, query, images, kept) for query, images in enumerate(found)])
    figures: Evaluation = {}
    for usage in benchmark.difficulties:
        queries = np.flatnonzero(benchmark.usages == usage).tolist()
        measured = _gap(benchmark, queries, answers) if benchmark.measure == "GAP" else _map(benchmark, queries, found)
        own = np.where(benchmark.usages == usage, ap, np.nan)
        figures[usage] = {"map": measured, "ap": own, "mp_at_k": np.empty(0)}
    return figures, answers


def _answers(benchmark: GLDv2Benchmark, found: Found, scores: NDArray[np.float32]) -> Answers:
    return tuple(
        (query, *voted(benchmark.landmarks[images], scores[query, : len(images)]))
        for query, images in enumerate(found)
        if len(images)
    )


def _ap(benchmark: GLDv2Benchmark, query: int, images: NDArray[np.int64], kept: int) -> float:
    positives = benchmark.ground_truth.easy[query]
    return average_precision_at(_texts(images), frozenset(_texts(positives)), kept) if len(positives) else float("nan")


def _map(benchmark: GLDv2Benchmark, queries: list[int], found: Found) -> float:
    positives = benchmark.ground_truth.easy
    return gldv2_map_at_k(
        {str(query): _texts(found[query]) for query in queries},
        {str(query): frozenset(_texts(positives[query])) for query in queries},
        K,
    )


def _gap(benchmark: GLDv2Benchmark, queries: list[int], answers: Answers) -> float:
    """Queries are ordered by their ids, so that their numbers, filled up with zeros, order equal scores alike."""
    wanted = set(queries)
    predictions = {f"{query:09}": (landmark, score) for query, landmark, score in answers if query in wanted}
    return global_average_precision(predictions, {f"{query:09}": benchmark.shown[query] for query in queries})


def voted(landmarks: NDArray[np.int64], scores: NDArray[np.float32]) -> tuple[int, float]:
    """The landmark with the highest sum of scores, and that sum; of equal ones, the lower number.

    `landmarks` and `scores` are those of a query's nearest images, (k,) each.
    """
    voters, place = np.unique(landmarks, return_inverse=True)
    sums = np.bincount(place, scores.astype(np.float64))
    best = int(sums.argmax())
    return int(voters[best]), float(sums[best])


def _texts(positions: NDArray[np.int64]) -> list[str]:
    return [str(position) for position in positions.tolist()]

"""Figures of GLDv2's retrieval and recognition from descriptors, Public and Private each for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.contracts import Difficulty, Evaluation, GLDv2Benchmark, Scores
from src.retrieval.descriptors import DescriptorMetric
from src.retrieval.index import FlatIndex
from src.retrieval.metrics import average_precision_at, gldv2_map_at_k, global_average_precision

# How many answers count in retrieval.
K = 100


class GLDv2Metric(DescriptorMetric):
    """mAP@100 of a retrieval benchmark, or GAP of a recognition benchmark, by its `measure`.

    Args:
        benchmark: queries, gallery, solution.
        dim: length of the descriptors.
        index: builds an empty index with `build` and `search`.

    `compute()` gives, for each usage, `map` (mAP@100 or GAP, a fraction), `ap` (each query's AP among the answers that
    are kept, NaN for queries of another usage or without positives) and an empty `mp_at_k`. Recognition also leaves
    `answers`: (query, landmark, score). A skipped query has no answer.
    """

    kappas: Sequence[int] = ()

    def __init__(
        self, benchmark: GLDv2Benchmark, dim: int, index: Callable[[], FlatIndex] = FlatIndex, **kwargs: Any
    ) -> None:
        super().__init__(benchmark.num_gallery, benchmark.queries, dim, index, benchmark.neighbours or K, **kwargs)
        self.benchmark = benchmark
        self.answers: tuple[tuple[int, int, float], ...] = ()

    def compute(self) -> Evaluation:
        """Rank, answer and measure. Raises InputError when images are missing."""
        found: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(self.queries)
        answers: list[tuple[int, int, float]] = []
        for rows, ranked, cosines in self.rankings(self.top):
            for query, images, scores in zip(rows.tolist(), ranked, cosines, strict=True):
                found[query] = images
                if self.benchmark.measure == "GAP":
                    answers.append((query, *voted(self.benchmark.landmarks[images], scores)))
        self.answers = tuple(answers)
        ap = np.array([self._ap(query, images) for query, images in enumerate(found)])
        return {usage: self._scores(usage, found, ap) for usage in self.benchmark.difficulties}

    def _ap(self, query: int, images: NDArray[np.int64]) -> float:
        positives = self.benchmark.ground_truth.easy[query]
        if not len(positives):
            return float("nan")
        return average_precision_at(_texts(images), frozenset(_texts(positives)), self.top)

    def _scores(self, usage: Difficulty, found: list[NDArray[np.int64]], ap: NDArray[np.float64]) -> Scores:
        queries = np.flatnonzero(self.benchmark.usages == usage).tolist()
        own = np.where(self.benchmark.usages == usage, ap, np.nan)
        measured = self._gap(queries) if self.benchmark.measure == "GAP" else self._map(queries, found)
        return {"map": measured, "ap": own, "mp_at_k": np.empty(0)}

    def _map(self, queries: list[int], found: list[NDArray[np.int64]]) -> float:
        positives = self.benchmark.ground_truth.easy
        return gldv2_map_at_k(
            {str(query): _texts(found[query]) for query in queries},
            {str(query): frozenset(_texts(positives[query])) for query in queries},
            K,
        )

    def _gap(self, queries: list[int]) -> float:
        """Queries are ordered by their ids, so that their numbers, filled up with zeros, order equal scores alike."""
        wanted = set(queries)
        predictions = {f"{query:09}": (landmark, score) for query, landmark, score in self.answers if query in wanted}
        return global_average_precision(predictions, {f"{query:09}": self.benchmark.shown[query] for query in queries})


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

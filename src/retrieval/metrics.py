"""Figures of rankings: Revisited Oxford and Paris (Radenovic et al., CVPR 2018), GLDv2 (Weyand et al., CVPR 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.contracts import DIFFICULTIES, Difficulty, Evaluation, GroundTruth, InputError, Scores
from src.retrieval.descriptors import DescriptorMetric
from src.retrieval.index import FlatIndex


def average_precision(ranks: NDArray[np.int64], positives: int) -> float:
    """Area under the precision-recall curve, by trapezoids.

    `ranks` are the ascending 0-based ranks of the positives found, ignored images taken out of the list;
    `positives` is how many exist, found or not.
    """
    found = np.arange(len(ranks))
    before = np.where(ranks > 0, found / np.maximum(ranks, 1), 1.0)
    after = (found + 1) / (ranks + 1)
    return float(((before + after) / 2).sum() / positives)


def precision_at(ranks: NDArray[np.int64], kappas: Sequence[int]) -> NDArray[np.float64]:
    """Precision among the first k images, k at most the rank of the last positive (the published rule)."""
    if not len(ranks):
        return np.zeros(len(kappas))
    cut = np.minimum(np.asarray(kappas), ranks[-1] + 1)
    return np.searchsorted(ranks, cut) / cut


def revisited_evaluation(
    ranks: NDArray[np.int64], ground_truth: GroundTruth, kappas: Sequence[int] = (1, 5, 10)
) -> Evaluation:
    """Easy, Medium and Hard figures of a ranking.

    Args:
        ranks: (queries, gallery) gallery positions, best first; a shorter list leaves its missing positives
            unfound.
        ground_truth: positives and junk of every query.
        kappas: the k of mP@k.

    Returns:
        For each of easy, medium and hard: `map`, `ap` (one a query, NaN for a query without positives, which
        is left out of the means) and `mp_at_k` (one a k). Means over no query are NaN.

    Raises:
        InputError: another number of queries in `ranks` than in `ground_truth`.
    """
    if len(ranks) != len(ground_truth):
        raise InputError(f"{len(ranks)} ranked lists for {len(ground_truth)} queries")
    return mean_scores(
        [query_scores(ranked, ground_truth, query, kappas) for query, ranked in enumerate(ranks)], kappas
    )


# Average precision and precision at each k of one query; NaN without positives.
QueryScores = dict[Difficulty, tuple[float, NDArray[np.float64]]]


def query_scores(
    ranked: NDArray[np.int64], ground_truth: GroundTruth, query: int, kappas: Sequence[int]
) -> QueryScores:
    """One query's figures: what is positive and what is ignored at each difficulty."""
    easy, hard, junk = ground_truth.easy[query], ground_truth.hard[query], ground_truth.junk[query]
    return {
        "easy": _score(ranked, easy, np.concatenate([hard, junk]), kappas),
        "medium": _score(ranked, np.concatenate([easy, hard]), junk, kappas),
        "hard": _score(ranked, hard, np.concatenate([easy, junk]), kappas),
    }


def mean_scores(queries: Sequence[QueryScores], kappas: Sequence[int]) -> Evaluation:
    """Means over the queries that have positives."""
    return {difficulty: _mean([query[difficulty] for query in queries], len(kappas)) for difficulty in DIFFICULTIES}


def _mean(queries: Sequence[tuple[float, NDArray[np.float64]]], kappas: int) -> Scores:
    ap = np.array([query[0] for query in queries], np.float64)
    counted = ~np.isnan(ap)
    if not counted.any():
        return {"map": float("nan"), "ap": ap, "mp_at_k": np.full(kappas, np.nan)}
    precision = np.stack([query[1] for query in queries])
    return {"map": float(ap[counted].mean()), "ap": ap, "mp_at_k": precision[counted].mean(0)}


def _score(
    ranked: NDArray[np.int64], positives: NDArray[np.int64], ignored: NDArray[np.int64], kappas: Sequence[int]
) -> tuple[float, NDArray[np.float64]]:
    if not len(positives):
        return float("nan"), np.full(len(kappas), np.nan)
    found = _positive_ranks(ranked, positives, ignored)
    return average_precision(found, len(positives)), precision_at(found, kappas)


def _positive_ranks(
    ranked: NDArray[np.int64], positives: NDArray[np.int64], ignored: NDArray[np.int64]
) -> NDArray[np.int64]:
    """0-based ranks of the positives, each lowered by the ignored images ranked before it."""
    at = np.flatnonzero(np.isin(ranked, positives))
    skipped = np.flatnonzero(np.isin(ranked, ignored))
    return at - np.searchsorted(skipped, at)


def gldv2_map_at_k(predictions: Mapping[str, Sequence[str]], solution: Mapping[str, Set[str]], k: int = 100) -> float:
    """GLDv2 retrieval's mAP@k: precision at each hit among the first k, over min(positives, k).

    Args:
        predictions: for each query its answers, best first. An answer that comes again counts for nothing but keeps its
            rank; a query without answers scores 0, one that is not in the solution is left out.
        solution: for each query the images that show its landmark.
        k: how many answers count.

    Raises:
        InputError: no query, or one without positives.
    """
    if not solution or not all(solution.values()):
        raise InputError("a GLDv2 retrieval solution needs queries, and positives for each")
    scores = [average_precision_at(predictions.get(query, ()), p, k) for query, p in solution.items()]
    return sum(scores) / len(scores)


def average_precision_at(answers: Sequence[str], positives: Set[str], k: int) -> float:
    """One query's part of `gldv2_map_at_k`: precision at each hit among the first k, over min(positives, k)."""
    answers = answers[:k]
    first = {answer: rank for rank, answer in reversed(list(enumerate(answers, start=1)))}
    hits = sorted(first[answer] for answer in first.keys() & positives)
    return sum(found / rank for found, rank in enumerate(hits, start=1)) / min(len(positives), k)


def global_average_precision(predictions: Mapping[str, tuple[int, float]], solution: Mapping[str, Set[int]]) -> float:
    """GLDv2 recognition's GAP, or micro-AP: one list of all images' answers, by confidence.

    Args:
        predictions: for some images a landmark and its score; those that are not in the solution are left out. Equal
            scores stand in the order of image, then landmark.
        solution: for each image the landmarks it shows; empty for images of none, for which every answer is wrong.

    Raises:
        InputError: a solution in which no image shows a landmark, or a score that is no number.
    """
    shown = sum(1 for landmarks in solution.values() if landmarks)
    if not shown:
        raise InputError("in this GLDv2 recognition solution no image shows a landmark")
    answers = sorted((-score, image, landmark) for image, (landmark, score) in predictions.items() if image in solution)
    if any(math.isnan(score) for score, _, _ in answers):
        raise InputError("a recognition score is not a number")
    hits = [rank for rank, (_, image, landmark) in enumerate(answers, start=1) if landmark in solution[image]]
    return sum(found / rank for found, rank in enumerate(hits, start=1)) / shown


class RevisitedMAP(DescriptorMetric):
    """Revisited mAP of a benchmark's descriptors.

    Args:
        ground_truth: positives and junk of every query.
        num_gallery, queries, dim, index, top: as for `DescriptorMetric`.
        kappas: the k of mP@k.

    `compute()` gives `revisited_evaluation`'s result. A skipped positive counts as not found, and a skipped query finds
    nothing; a skipped negative no longer stands above a positive.
    """

    def __init__(
        self,
        ground_truth: GroundTruth,
        num_gallery: int,
        queries: NDArray[np.int64],
        dim: int,
        index: Callable[[], FlatIndex] = FlatIndex,
        kappas: Sequence[int] = (1, 5, 10),
        top: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_gallery, queries, dim, index, top, **kwargs)
        self.ground_truth = ground_truth
        self.kappas = tuple(kappas)

    def compute(self) -> Evaluation:
        """Rank the gallery for each query and measure it. Raises InputError when images are missing."""
        nothing = np.empty(0, np.int64)
        scores = [query_scores(nothing, self.ground_truth, query, self.kappas) for query in range(len(self.queries))]
        for rows, ranked, _ in self.rankings():
            for query, found in zip(rows.tolist(), ranked, strict=True):
                scores[query] = query_scores(found, self.ground_truth, query, self.kappas)
        return mean_scores(scores, self.kappas)

"""Measures of rankings: average precision by the rules of Revisited Oxford and Paris and of GLDv2; curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import DIFFICULTIES, Difficulty, Evaluation, Figures, GroundTruth, Ranked, Ranking, Scores
from dolglab.errors import UserError


def ranks_in(ranking: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """The 0-based rank of each wanted position in `ranking`, best first; -1 for positions that are not in it.

    >>> ranks_in(np.array([7, 3, 5]), np.array([5, 7, 1])).tolist()
    [2, 0, -1]
    """
    distinct, places = np.unique(wanted, return_inverse=True)
    at = np.flatnonzero(np.isin(ranking, distinct))
    ranks = np.full(len(distinct), -1, np.int64)
    ranks[np.searchsorted(distinct, ranking[at])] = at
    return ranks[places]


def check_distinct(ranking: NDArray[np.int64], query: int) -> None:
    """Raise UserError if a ranking contains an image twice; positions below 0 are not images."""
    counts = np.bincount(ranking[ranking >= 0])
    if len(counts) and counts.max() > 1:
        raise UserError(f"the ranking of query {query} (from 0) names image {counts.argmax()} {counts.max()} times")


def average_precision(ranks: NDArray[np.int64], positives: int) -> float:
    """Area under the precision-recall curve, by the trapezoidal rule.

    `ranks` are the ascending 0-based ranks of the positives found, in the list without ignored images; `positives` is
    the number of positives, found or not.
    """
    found = np.arange(len(ranks))
    before = np.where(ranks > 0, found / np.maximum(ranks, 1), 1.0)
    after = (found + 1) / (ranks + 1)
    return float(((before + after) / 2).sum() / positives)


def precision_at(ranks: NDArray[np.int64], kappas: Sequence[int]) -> NDArray[np.float64]:
    """Precision among the first k images; k is at most the rank of the last positive (the published rule)."""
    if not len(ranks):
        return np.zeros(len(kappas))
    cut = np.minimum(np.asarray(kappas), ranks[-1] + 1)
    return np.searchsorted(ranks, cut) / cut


def revisited_evaluation(
    ranks: NDArray[np.int64], ground_truth: GroundTruth, kappas: Sequence[int] = (1, 5, 10)
) -> Evaluation:
    """Easy, Medium and Hard figures of a ranking.

    Args:
        ranks: (queries, gallery) gallery positions, best first; positives missing from a shorter list count as not
            found.
        ground_truth: positives and junk of every query.
        kappas: the values of k in mP@k.

    Returns:
        For each of easy, medium and hard: `map`, `ap` (one per query; NaN for a query without positives, which is left
        out of the means) and `mp_at_k` (one per k). Means over no queries are NaN.

    Raises UserError if the numbers of queries in `ranks` and `ground_truth` differ, and for an image that is ranked
    twice.
    """
    if len(ranks) != len(ground_truth):
        raise UserError(f"{len(ranks)} ranked lists for {len(ground_truth)} queries")
    for query, ranking in enumerate(ranks):
        check_distinct(ranking, query)
    expected = ground_truth_ids_of(ground_truth)
    found = tuple(ranks_in(ranked, labelled) for ranked, labelled in zip(ranks, expected, strict=True))
    ranked = Ranked(ranks, np.empty((len(ranks), 0), np.float32), expected, found)
    return RevisitedMeasure(kappas).figures(ground_truth, dict.fromkeys(DIFFICULTIES, ranked)).evaluation


def ground_truth_ids_of(ground_truth: GroundTruth) -> tuple[NDArray[np.int64], ...]:
    """For each query the gallery positions in its ground truth: easy, hard and junk, in this order."""
    kinds = zip(ground_truth.easy, ground_truth.hard, ground_truth.junk, strict=True)
    return tuple(np.concatenate(parts) for parts in kinds)


def positive_ranks(difficulty: Difficulty, ranked: Ranked, ground_truth: GroundTruth) -> list[NDArray[np.int64]]:
    """For each query the ascending 0-based ranks of the positives found, in the list without ignored images.

    Raises ValueError for rankings whose labelled images are not `ground_truth_ids_of(ground_truth)`.
    """
    expected = ground_truth_ids_of(ground_truth)
    if len(ranked) != len(expected) or not all(map(np.array_equal, ranked.ground_truth_ids, expected)):
        raise ValueError("these rankings were made for another ground truth")
    found = []
    for own, part in zip(ranked.ranks, _positive_parts(difficulty, ground_truth), strict=True):
        positives, ignored = np.sort(own[part]), np.sort(np.delete(own, part))
        # Missing ones (-1) come first; each other rank is reduced by the number of ignored images before it.
        positives, ignored = positives[positives >= 0], ignored[ignored >= 0]
        found.append(positives - np.searchsorted(ignored, positives))
    return found


def positive_counts(difficulty: Difficulty, ground_truth: GroundTruth) -> list[int]:
    """The number of positives of each query, found or not."""
    return [part.stop - part.start for part in _positive_parts(difficulty, ground_truth)]


def ignored_of(difficulty: Difficulty, ground_truth: GroundTruth) -> list[NDArray[np.int64]]:
    """For each query the gallery positions that are ignored."""
    parts = _positive_parts(difficulty, ground_truth)
    return [np.delete(own, part) for own, part in zip(ground_truth_ids_of(ground_truth), parts, strict=True)]


def _positive_parts(difficulty: Difficulty, ground_truth: GroundTruth) -> list[slice]:
    """The part of each query's labelled images (easy, hard, junk) that is positive; the rest is ignored."""
    sizes = [(len(easy), len(hard)) for easy, hard in zip(ground_truth.easy, ground_truth.hard, strict=True)]
    return [
        slice(easy if difficulty == "hard" else 0, easy if difficulty == "easy" else easy + hard)
        for easy, hard in sizes
    ]


def _scores(ranks: Sequence[NDArray[np.int64]], counts: Sequence[int], kappas: Sequence[int]) -> Scores:
    """Means over the queries with positives, from the ranks of the positives found and their numbers."""
    pairs = list(zip(ranks, counts, strict=True))
    ap = np.array([average_precision(own, count) if count else np.nan for own, count in pairs], np.float64)
    precision = [precision_at(own, kappas) for own, count in pairs if count]
    if not precision:
        return {"map": float("nan"), "ap": ap, "mp_at_k": np.full(len(kappas), np.nan)}
    return {"map": float(np.nanmean(ap)), "ap": ap, "mp_at_k": np.mean(precision, axis=0)}


def gldv2_map_at_k(predictions: Mapping[str, Sequence[str]], solution: Mapping[str, Set[str]], k: int = 100) -> float:
    """GLDv2 retrieval's mAP@k: precision at each hit among the first k, over min(positives, k).

    Args:
        predictions: for each query its answers, best first. A repeated answer does not count but keeps its rank; a
            query without answers scores 0; a query that is not in the solution is left out.
        solution: for each query the images that show its landmark.
        k: number of answers that count.

    Raises UserError for a solution without queries, or with a query without positives.
    """
    if not solution or not all(solution.values()):
        raise UserError("a GLDv2 retrieval solution needs queries, and positives for each")
    scores = [average_precision_at(predictions.get(query, ()), p, k) for query, p in solution.items()]
    return sum(scores) / len(scores)


def average_precision_at(answers: Sequence[str], positives: Set[str], k: int) -> float:
    """One query's part of `gldv2_map_at_k`: precision at each hit among the first k, over min(positives, k)."""
    answers = answers[:k]
    first = {answer: rank for rank, answer in reversed(list(enumerate(answers, start=1)))}
    hits = sorted(first[answer] for answer in first.keys() & positives)
    return sum(found / rank for found, rank in enumerate(hits, start=1)) / min(len(positives), k)


def global_average_precision(predictions: Mapping[str, tuple[int, float]], solution: Mapping[str, Set[int]]) -> float:
    """GLDv2 recognition's GAP, or micro-AP: a single list of all images' answers, sorted by confidence.

    Args:
        predictions: a landmark and its score for some images; images that are not in the solution are left out. Ties
            are sorted by image, then landmark.
        solution: for each image the landmarks it shows; empty if it shows none, so that every answer is wrong.

    Raises UserError for a solution in which no image shows a landmark, and for a score that is not a number.
    """
    shown = sum(1 for landmarks in solution.values() if landmarks)
    if not shown:
        raise UserError("in this GLDv2 recognition solution no image shows a landmark")
    answers = sorted((-score, image, landmark) for image, (landmark, score) in predictions.items() if image in solution)
    if any(math.isnan(score) for score, _, _ in answers):
        raise UserError("a recognition score is not a number")
    hits = [rank for rank, (_, image, landmark) in enumerate(answers, start=1) if landmark in solution[image]]
    return sum(found / rank for found, rank in enumerate(hits, start=1)) / shown


def mean_scores(values: NDArray[np.float64], mean: float | None = None) -> Scores:
    """Scores without mP@k: each query's value, (Q,), NaN if it has none, and their mean, unless `mean` is given."""
    if mean is None:
        mean = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    return {"map": mean, "ap": values, "mp_at_k": np.empty(0)}


class FirstAnswersMeasure:
    """The common part of measures that use only a query's first answers and have no submission file."""

    def ground_truth_ids(self, truth: GroundTruth) -> tuple[NDArray[np.int64], ...]:
        """None."""
        return (np.empty(0, np.int64),) * len(truth)

    def submission(self, ranking: Ranking) -> str | None:
        """There is none."""


class RevisitedMeasure:
    """The mAP and mP@k of Revisited Oxford and Paris, and of every set of labelled images."""

    name = "mAP"
    depth = 100

    def __init__(self, kappas: Sequence[int] = (1, 5, 10)) -> None:
        self.kappas = tuple(map(int, kappas))

    def ground_truth_ids(self, truth: GroundTruth) -> tuple[NDArray[np.int64], ...]:
        """Positives and junk of each query."""
        return ground_truth_ids_of(truth)

    def figures(self, truth: GroundTruth, rankings: Mapping[Difficulty, Ranked]) -> Figures:
        """Figures and precision-recall curve at each difficulty."""
        evaluation: Evaluation = {}
        curves: dict[Difficulty, NDArray[np.float64]] = {}
        for difficulty, ranked in rankings.items():
            ranks, counts = positive_ranks(difficulty, ranked, truth), positive_counts(difficulty, truth)
            evaluation[difficulty] = _scores(ranks, counts, self.kappas)
            curves[difficulty] = mean_precision_at_recalls(ranks, counts)
        return Figures(evaluation, self.kappas, curves=curves)

    def submission(self, ranking: Ranking) -> None:
        """There is none."""

    def settings(self) -> dict[str, object]:
        """The k of mP@k."""
        return {"kappas": self.kappas}


class GroupedAveragePrecision(RevisitedMeasure):
    """mAP by the trapezoidal rule, without difficulties, over all queries and over groups of queries.

    Args:
        names: the names of the G figures.
        members: (G, Q) which queries belong to each figure.
        kappas: the k of mP@k.
    """

    def __init__(
        self, names: Sequence[Difficulty], members: NDArray[np.bool_], kappas: Sequence[int] = (1, 5, 10)
    ) -> None:
        super().__init__(kappas)
        self.groups = dict(zip(map(str, names), members, strict=True))

    def figures(self, truth: GroundTruth, rankings: Mapping[Difficulty, Ranked]) -> Figures:
        """Figures and precision-recall curve of each group."""
        ranked = next(iter(rankings.values()))
        ranks, counts = positive_ranks("medium", ranked, truth), np.array(positive_counts("medium", truth))
        # Queries of other groups are left out like queries without positives.
        own = {name: np.where(members, counts, 0).tolist() for name, members in self.groups.items()}
        evaluation = {name: _scores(ranks, of, self.kappas) for name, of in own.items()}
        curves = {name: mean_precision_at_recalls(ranks, of) for name, of in own.items()}
        return Figures(evaluation, self.kappas, curves=curves)

    def settings(self) -> dict[str, object]:
        """The groups, and the k of mP@k."""
        return {"names": list(self.groups), "members": list(self.groups.values()), **super().settings()}


# Recall 0, 0.01, ..., 1.
STEPS = 100


def precision_at_recalls(ranks: NDArray[np.int64], positives: int) -> NDArray[np.float64]:
    """One query's interpolated precision at recall 0, 0.01, ..., 1, (101,): the highest at that recall or above.

    `ranks` are the ascending 0-based ranks of the positives found, in the list without ignored images; `positives` is
    their total number. Precision is 0 at recalls that were not reached; without positives everything is NaN. Manning,
    Raghavan and Schütze, Introduction to Information Retrieval (2008), section 8.4.
    """
    if not positives:
        return np.full(STEPS + 1, np.nan)
    precision = np.arange(1, len(ranks) + 1) / (ranks + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    # Integers, because 0.07 * 100 is more than 7 in floating point.
    needed = np.maximum(-(-np.arange(STEPS + 1) * positives // STEPS), 1)
    return np.append(highest, 0.0)[np.minimum(needed - 1, len(ranks))]


def mean_precision_at_recalls(ranks: Sequence[NDArray[np.int64]], positives: Sequence[int]) -> NDArray[np.float64]:
    """The mean of `precision_at_recalls` over the queries with positives, (101,); NaN if there are none."""
    curves = [precision_at_recalls(found, count) for found, count in zip(ranks, positives, strict=True) if count]
    return np.mean(curves, axis=0) if curves else np.full(STEPS + 1, np.nan)

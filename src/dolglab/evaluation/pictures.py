"""Pictures of an evaluation for a person: inlier matches, and where the network looks."""

from __future__ import annotations

import numpy as np

from dolglab.contracts import Benchmark, Ranking
from dolglab.evaluation.evaluator import Evaluator
from dolglab.extraction.extractor import attention_scores
from dolglab.results.pictures import attention_overlay, chosen_queries, match_figure, shown_difficulty
from dolglab.retrieval.rerank.spatial import Spatial

Picture = tuple[str, bytes]


def pictures_of(evaluator: Evaluator, ranking: Ranking, count: int) -> list[Picture]:
    """Titles and JPEGs for `count` queries, from the best AP to the worst; main process alone."""
    ap = np.asarray(ranking.evaluation[shown_difficulty(ranking)]["ap"], np.float64)
    reranker, extractor = evaluator.pipeline.rerank, evaluator.extractor.extractor
    pictures = []
    for query in chosen_queries(ap, count).tolist() if count else []:
        if isinstance(reranker, Spatial):
            pictures += _matches(evaluator, reranker, ranking, query)
        if extractor is not None:
            position = int(ranking.benchmark.queries[query])
            # The query as it was described, at its own size.
            image = _pixels(evaluator, ranking.benchmark, position)
            picture = attention_overlay(image, attention_scores(extractor.model, image))
            pictures.append((f"Attention in {ranking.benchmark.source.name(position)}", picture))
    return pictures


def _matches(evaluator: Evaluator, spatial: Spatial, ranking: Ranking, query: int) -> list[Picture]:
    """The query and the answer that re-ranking put first, with the matches that one transformation explains."""
    benchmark = ranking.benchmark
    image = int(benchmark.queries[query])
    answers = [int(p) for p in ranking.top[query, :2] if p >= 0 and p != image]
    if not answers:
        return []
    features = evaluator.extractor.stored_local_features(benchmark)
    ours, theirs = features(image), features(answers[0])
    match = spatial.verified(ours, theirs)
    rows = match.matches[match.inlier]
    names = [benchmark.source.name(position) for position in (image, answers[0])]
    picture = match_figure(
        _pixels(evaluator, benchmark, image),
        _pixels(evaluator, benchmark, answers[0]),
        ours.keypoints[rows[:, 0]],
        theirs.keypoints[rows[:, 1]],
        f"{match.count} inliers of {len(match.matches)} matches",
    )
    return [(f"Matches of {names[0]} and {names[1]}", picture)]


def _pixels(evaluator: Evaluator, benchmark: Benchmark, position: int) -> np.ndarray:
    return evaluator.extractor.images.of(benchmark).__getitems__([position]).images[0].numpy()

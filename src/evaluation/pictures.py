"""What a person wants to see of an evaluation: inlier matches, and where the network looks."""

from __future__ import annotations

import numpy as np
import torch

from src.contracts import Benchmark, Ranking
from src.evaluation.evaluator import Evaluator
from src.results.attention import attention_overlay
from src.results.figures import chosen_queries, shown_difficulty

Picture = tuple[str, bytes]


def pictures_of(evaluator: Evaluator, ranking: Ranking, count: int) -> list[Picture]:
    """Titles and JPEGs for `count` queries, from the best AP to the worst; main process alone."""
    ap = np.asarray(ranking.evaluation[shown_difficulty(ranking)]["ap"], np.float64)
    queries = chosen_queries(ap, count).tolist() if count else []
    return [_attention(evaluator, ranking.benchmark, query) for query in queries if evaluator.extractor]


def _attention(evaluator: Evaluator, benchmark: Benchmark, query: int) -> Picture:
    """A query's attention scores over the photo, as it was described, at its own size."""
    assert evaluator.extractor is not None
    model = evaluator.extractor.model
    position = int(benchmark.queries[query])
    image = evaluator.images.of(benchmark).__getitems__([position]).images[0]
    with torch.inference_mode():
        maps = model.local_maps(model.backbone.normalise(image.permute(2, 0, 1)[None]))
    title = f"Attention in {benchmark.source.name(position)}"
    return title, attention_overlay(image.numpy(), maps.scores[0, 0].float().numpy())

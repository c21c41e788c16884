"""Figures of a benchmark's rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, Difficulty, Evaluation, GLDv2Benchmark
from src.retrieval.gldv2 import gldv2_figures
from src.retrieval.metrics import curve_at, scores_at
from src.retrieval.ranking import Ranked

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

"""Precision against recall."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Recall 0, 0.01, ..., 1.
STEPS = 100


def precision_at_recalls(ranks: NDArray[np.int64], positives: int) -> NDArray[np.float64]:
    """One query's interpolated precision at recall 0, 0.01, ..., 1, (101,): the highest at that recall or beyond.

    `ranks` are the ascending 0-based ranks of the positives found, ignored images taken out of the list; `positives` is
    how many exist. Recall that was not reached has precision 0; without positives everything is NaN. Manning, Raghavan
    and Schütze, Introduction to Information Retrieval (2008), section 8.4.
    """
    if not positives:
        return np.full(STEPS + 1, np.nan)
    precision = np.arange(1, len(ranks) + 1) / (ranks + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    # Integers, since 0.07 * 100 positives is more than 7 in floating point.
    needed = np.maximum(-(-np.arange(STEPS + 1) * positives // STEPS), 1)
    return np.append(highest, 0.0)[np.minimum(needed - 1, len(ranks))]


def mean_precision_at_recalls(ranks: Sequence[NDArray[np.int64]], positives: Sequence[int]) -> NDArray[np.float64]:
    """The mean of `precision_at_recalls` over the queries that have positives, (101,); NaN where none has."""
    curves = [precision_at_recalls(found, count) for found, count in zip(ranks, positives, strict=True) if count]
    return np.mean(curves, axis=0) if curves else np.full(STEPS + 1, np.nan)

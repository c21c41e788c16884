"""Answers in the files that GLDv2's Kaggle competitions take."""

from __future__ import annotations

import csv
import io
from pathlib import PurePosixPath

from src.contracts import Ranking


def submission(ranking: Ranking) -> str:
    """`id,images` (up to 100 ids, best first) for retrieval, `id,landmarks` (a landmark and its score) for recognition.

    A query that could not be read has a row without an answer.
    """
    recognition = ranking.benchmark.measure == "GAP"
    answers = _landmarks(ranking) if recognition else _images(ranking)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("id", "landmarks" if recognition else "images"))
    for row, query in enumerate(ranking.benchmark.queries.tolist()):
        rows.writerow((_id(ranking, query), answers.get(row, "")))
    return text.getvalue()


def _images(ranking: Ranking) -> dict[int, str]:
    return {
        row: " ".join(_id(ranking, position) for position in found.tolist() if position >= 0)
        for row, found in enumerate(ranking.top)
    }


def _landmarks(ranking: Ranking) -> dict[int, str]:
    return {row: f"{landmark} {score:.8f}" for row, landmark, score in ranking.answers}


def _id(ranking: Ranking, position: int) -> str:
    return PurePosixPath(ranking.benchmark.source.name(position)).stem

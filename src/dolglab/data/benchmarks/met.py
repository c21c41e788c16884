"""The Met (Ypsilantis et al., NeurIPS 2021): classify visitors' photographs by the museum's; GAP, GAP-, ACC.

Many test photographs show no exhibit: any answer to them is wrong, and a confident one lowers GAP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, BoolArray, Difficulty, Figures, GroundTruth, IntArray, Ranked
from dolglab.data.benchmarks.listing import (
    NOTHING,
    Counts,
    Rules,
    check_counts,
    fingerprint,
    listed_files,
    make_benchmark,
    number,
    read_json,
)
from dolglab.data.folder import rows_by_landmark
from dolglab.data.sources import JoinedSource
from dolglab.errors import UserError
from dolglab.measures import FirstAnswersMeasure, mean_scores

Variant = Literal["full", "mini"]
DATABASE = {"full": "MET_database.json", "mini": "mini_MET_database.json"}
FETCH = "dolglab prepare task=met, or met_mini, downloads it"
# The official grid; the best on validation is used, the first of equals.
NEIGHBOURS = (1, 2, 3, 5, 7, 10)
TEMPERATURES = (0.01, 0.1, 1.0, 5.0, 10.0, 15.0, 20.0)
FIGURES: tuple[Difficulty, ...] = ("GAP", "GAP-", "ACC")
# The label of a photograph without an exhibit.
NO_EXHIBIT = -1


def met_benchmark(
    root: str | Path,
    variant: Variant = "full",
    neighbours: Sequence[int] = NEIGHBOURS,
    temperatures: Sequence[float] = TEMPERATURES,
    counts: Counts = None,
    name: str | None = None,
) -> Benchmark:
    """The database as gallery; the photographs of test and validation as queries.

    Args:
        root: folder with `ground_truth/*.json` and `images/`.
        variant: whether `MET_database.json` or `mini_MET_database.json` is the gallery.
        neighbours, temperatures: of the classifier; the pair with the best GAP on validation is used. A single pair
            is used without validation.
        counts: numbers of database and test photographs.
        name: the name in results.

    Raises UserError for an unknown variant, an empty or invalid grid, invalid lists, photographs that are missing or
    listed twice, and numbers other than `counts`.
    """
    if variant not in get_args(Variant):
        raise UserError(f"benchmark.variant must be {' or '.join(get_args(Variant))}, not {variant}")
    grid = list(product(sorted(neighbours), temperatures))
    if not grid or not all(isinstance(k, int) and k >= 1 and t > 0 for k, t in grid):
        raise UserError("benchmark.neighbours must be whole numbers from 1, and benchmark.temperatures numbers above 0")
    root, name = Path(root), name or ("met" if variant == "full" else "met_mini")
    lists = root / "ground_truth"
    database = read_listed(lists / DATABASE[variant], "id")
    test = read_listed(lists / "testset.json", "MET_id", optional=True)
    validation = read_listed(lists / "valset.json", "MET_id", optional=True) if len(grid) > 1 else []
    for kind, part in (("test", test), ("validation", validation)):
        if part and all(label == NO_EXHIBIT for _, label in part):
            raise UserError(f"{lists}: no {kind} photograph shows an exhibit (MET_id), so GAP is undefined")
    notes = check_counts(name, root, len(database), len(test), counts)
    files = [listed_files(root / "images", [path for path, _ in part], FETCH) for part in (database, test, validation)]
    labels, asked = (np.array([label for _, label in part], np.int64) for part in (database, [*test, *validation]))
    members = rows_by_landmark(labels.astype(np.str_))
    positives = [members.get(str(label), NOTHING) for label in asked.tolist()]
    measure = MetMeasure(labels, asked, len(test), grid)
    gallery = len(database)
    return make_benchmark(
        name,
        source=JoinedSource(*(part.source for part in files)),
        num_gallery=gallery,
        queries=np.arange(gallery, gallery + len(asked)),
        positives=positives,
        digest=fingerprint(files, positives, labels.tolist(), asked.tolist()),
        measure=measure,
        difficulties=FIGURES,
        notes=notes,
        rules=Rules(
            "GAP with one answer per test photograph; GAP- without photographs that show no exhibit; ACC, the share "
            "of correctly classified exhibits; nearest neighbours vote by softmax",
            "not cropped, at their published size (official: no resizing; whitened to 512 values, learned on the "
            "database)",
            "nothing: exhibits that are not in the database, or could not be read, count as failures",
            "equal confidences are in test order (official: undefined); of equal classes, the smallest number",
        ),
    )


def read_listed(path: Path, key: str, optional: bool = False) -> list[tuple[str, int]]:
    """Path and label of each photograph; if labels are `optional`, missing ones are `NO_EXHIBIT`.

    Raises UserError for an invalid file.
    """
    rows = read_json(path, FETCH)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "path" in row for row in rows) or not rows:
        raise UserError(f"{path} is not a list of photographs with a path: it has another version")
    without = next((row["path"] for row in rows if key not in row and not optional), None)
    if without is not None:
        raise UserError(f"{path}: {without} has no {key}: the file has another version")
    return [(str(row["path"]), _label(row, key, path)) for row in rows]


def _label(row: Mapping[str, Any], key: str, path: Path) -> int:
    return int(number(row[key], f"{path}, {row['path']}", "whole")) if key in row else NO_EXHIBIT


class Answers(NamedTuple):
    """The predicted class of each query, (Q,), and its confidence, (Q,) from 0 to 1; NaN without an answer."""

    labels: IntArray
    confidences: NDArray[np.float64]


def classify(
    labels: IntArray, scores: NDArray[np.floating], classes: IntArray, neighbours: int, temperature: float
) -> Answers:
    """The official classifier: a softmax over all classes of each one's largest similarity, clipped at 0.

    Args:
        labels: (Q, k) classes of the nearest images, best first; a score of -inf means no image.
        scores: (Q, k) their similarities.
        classes: all classes, ascending.
        neighbours: number of nearest images that count.
        temperature: factor on the similarities.

    Classes without a neighbour have a similarity of 0; of equal classes, the smallest number is used.
    """
    found, sure = np.full(len(labels), NO_EXHIBIT), np.full(len(labels), np.nan)
    for query, (own, values) in enumerate(zip(labels[:, :neighbours], scores[:, :neighbours], strict=True)):
        there = np.isfinite(values)
        if not there.any():
            continue
        met, place = np.unique(own[there], return_inverse=True)
        largest = np.zeros(len(met))
        np.maximum.at(largest, place, values[there].astype(np.float64))
        best = float(largest.max())
        # At 0, all classes are equal, and the smallest number is used.
        found[query] = met[largest.argmax()] if best > 0 else classes[0]
        others = (len(classes) - len(met)) * np.exp(-temperature * best)
        sure[query] = 1 / (np.exp(temperature * (largest - best)).sum() + others)
    return Answers(found, sure)


def global_precision(right: BoolArray, confidences: NDArray[np.float64], exhibits: int) -> float:
    """GAP with one answer per query: the sum of the precision at each right answer, divided by `exhibits`.

    Answers are sorted by descending confidence. `right` and `confidences` are (n,); queries without an answer, NaN,
    are left out.
    """
    order = np.argsort(-confidences, kind="stable")
    ranked = right[order][np.isfinite(confidences[order])]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].sum() / exhibits)


class MetMeasure(FirstAnswersMeasure):
    """GAP, GAP- and ACC on the test, with the classifier that is best on validation.

    Args:
        labels: (N,) labels of the gallery.
        asked: (Q,) labels of the queries, those of the test first; `NO_EXHIBIT` if there is none.
        tested: number of test queries.
        grid: pairs of neighbours and temperature to choose from.
    """

    name = ""

    def __init__(self, labels: IntArray, asked: IntArray, tested: int, grid: Sequence[tuple[int, float]]) -> None:
        self.labels, self.asked, self.tested = labels, asked, int(tested)
        self.grid = tuple((int(k), float(temperature)) for k, temperature in grid)
        self.classes = np.unique(labels)
        self.depth = max(k for k, _ in self.grid)

    def figures(self, truth: GroundTruth, rankings: Mapping[Difficulty, Ranked]) -> Figures:
        """The three figures; only ACC is a mean over queries. `answers` has those of the test."""
        ranked = next(iter(rankings.values()))
        neighbours, temperature = self.chosen(ranked)
        test = slice(self.tested)
        answers = self._answers(ranked, test, neighbours, temperature)
        asked = self.asked[test]
        right, exhibit = answers.labels == asked, asked != NO_EXHIBIT
        count = int(exhibit.sum())
        said = f"K {neighbours}, temperature {temperature:g}"
        how = (
            f", the best GAP on {len(self.asked) - self.tested:,} validation photographs" if len(self.grid) > 1 else ""
        )
        pooled = {"GAP": np.ones(len(asked), np.bool_), "GAP-": exhibit}
        values = {
            name: global_precision((right & exhibit)[of], answers.confidences[of], count) for name, of in pooled.items()
        }
        nothing = np.full(len(self.asked), np.nan)
        accuracy = nothing.copy()
        accuracy[test] = np.where(exhibit, right, np.nan)
        evaluation = {name: mean_scores(nothing, value) for name, value in values.items()}
        evaluation["ACC"] = mean_scores(accuracy)
        rows = np.flatnonzero(np.isfinite(answers.confidences)).tolist()
        said_of = tuple((row, int(answers.labels[row]), float(answers.confidences[row])) for row in rows)
        return Figures(evaluation, answers=said_of, notes=(said + how,))

    def chosen(self, ranked: Ranked) -> tuple[int, float]:
        """The neighbours and temperature that are best on validation, the first of equals."""
        if len(self.grid) == 1:
            return self.grid[0]
        validation = slice(self.tested, None)
        asked = self.asked[validation]
        exhibits = int((asked != NO_EXHIBIT).sum())

        def gap(choice: tuple[int, float]) -> float:
            answers = self._answers(ranked, validation, *choice)
            right = (answers.labels == asked) & (asked != NO_EXHIBIT)
            return global_precision(right, answers.confidences, exhibits)

        return max(self.grid, key=gap)

    def settings(self) -> dict[str, object]:
        """The arguments of the constructor."""
        return {"labels": self.labels, "asked": self.asked, "tested": self.tested, "grid": self.grid}

    def _answers(self, ranked: Ranked, queries: slice, neighbours: int, temperature: float) -> Answers:
        head, scores = ranked.top_k[queries, : self.depth], ranked.scores[queries, : self.depth]
        return classify(self.labels[np.maximum(head, 0)], scores, self.classes, neighbours, temperature)

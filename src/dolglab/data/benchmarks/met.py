"""The Met (Ypsilantis et al., NeurIPS 2021): visitors' photographs, classified by those of the museum; GAP, GAP-, ACC.

Many test photographs show no exhibit: what is said of them is wrong, and a sure answer costs GAP.
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
FETCH = "dolglab prepare task=met, or met_mini, fetches it"
# The official grid, of which the first best of validation is taken.
NEIGHBOURS = (1, 2, 3, 5, 7, 10)
TEMPERATURES = (0.01, 0.1, 1.0, 5.0, 10.0, 15.0, 20.0)
FIGURES: tuple[Difficulty, ...] = ("GAP", "GAP-", "ACC")
# The label of a photograph of no exhibit.
NO_EXHIBIT = -1


def met_benchmark(
    root: str | Path,
    variant: Variant = "full",
    neighbours: Sequence[int] = NEIGHBOURS,
    temperatures: Sequence[float] = TEMPERATURES,
    counts: Counts = None,
    name: str | None = None,
) -> Benchmark:
    """The database as gallery; the photographs of the test, and of validation to choose by, as queries.

    Args:
        root: folder with `ground_truth/*.json` and `images/`.
        variant: whether `MET_database.json` or `mini_MET_database.json` is the gallery.
        neighbours, temperatures: of the classifier; of several, those best by GAP on validation are taken. One each
            is taken as it is, without validation.
        counts: how many database photographs and test photographs there are.
        name: what results call it.

    Raises UserError for a variant there is not, an empty or wrong grid, lists of another form, photographs that are
    missing or listed twice, other numbers than `counts`.
    """
    if variant not in get_args(Variant):
        raise UserError(f"benchmark.variant must be {' or '.join(get_args(Variant))}, not {variant}")
    grid = list(product(sorted(neighbours), temperatures))
    if not grid or not all(isinstance(k, int) and k >= 1 and t > 0 for k, t in grid):
        raise UserError("benchmark.neighbours are whole numbers from 1, benchmark.temperatures numbers above 0")
    root, name = Path(root), name or ("met" if variant == "full" else "met_mini")
    lists = root / "ground_truth"
    database = read_listed(lists / DATABASE[variant], "id")
    test = read_listed(lists / "testset.json", "MET_id", optional=True)
    validation = read_listed(lists / "valset.json", "MET_id", optional=True) if len(grid) > 1 else []
    for kind, part in (("test", test), ("validation", validation)):
        if part and all(label == NO_EXHIBIT for _, label in part):
            raise UserError(f"{lists}: no {kind} photograph shows an exhibit (MET_id), so that there is no GAP")
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
            "GAP of one answer each test photograph, over exhibits; GAP- without photographs of none; ACC, the share "
            "of exhibits named rightly; nearest neighbours voting by softmax",
            "whole, in their published size (official: no resizing; whitened to 512 values learned on the database)",
            "nothing: exhibits that are not in the database, or could not be read, stay in the divisors",
            "equal confidences stand in test order (official: undefined), equal classes by smallest number",
        ),
    )


def read_listed(path: Path, key: str, optional: bool = False) -> list[tuple[str, int]]:
    """Path and label of each photograph; where that is `optional`, those without are labelled `NO_EXHIBIT`.

    Raises UserError for a file of another form.
    """
    rows = read_json(path, FETCH)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "path" in row for row in rows) or not rows:
        raise UserError(f"{path} is no list of photographs with a path: another version")
    without = next((row["path"] for row in rows if key not in row and not optional), None)
    if without is not None:
        raise UserError(f"{path}: {without} has no {key}: another version")
    return [(str(row["path"]), _label(row, key, path)) for row in rows]


def _label(row: Mapping[str, Any], key: str, path: Path) -> int:
    return int(number(row[key], f"{path}, {row['path']}", "whole")) if key in row else NO_EXHIBIT


class Answers(NamedTuple):
    """The class that each query is said to show, (Q,), and how sure that is, (Q,) from 0 to 1; NaN for no answer."""

    labels: IntArray
    confidences: NDArray[np.float64]


def classify(
    labels: IntArray, scores: NDArray[np.floating], classes: IntArray, neighbours: int, temperature: float
) -> Answers:
    """The official classifier: softmax of each class's largest similarity, never below 0, over all classes.

    Args:
        labels: (Q, k) classes of the nearest images, best first; where a score is -inf there is no image.
        scores: (Q, k) theirs.
        classes: all, ascending.
        neighbours: how many nearest images count.
        temperature: what similarities are multiplied by.

    Classes that are not met count with a similarity of 0; of equal ones the smallest number is taken.
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
        # Of classes at 0 most are not met.
        found[query] = met[largest.argmax()] if best > 0 else classes[0]
        others = (len(classes) - len(met)) * np.exp(-temperature * best)
        sure[query] = 1 / (np.exp(temperature * (largest - best)).sum() + others)
    return Answers(found, sure)


def global_precision(right: BoolArray, confidences: NDArray[np.float64], exhibits: int) -> float:
    """GAP of one answer a query: precision at each right one of the list by falling confidence, over `exhibits`.

    `right` and `confidences` are (n,); a query without an answer, NaN, is not in the list.
    """
    order = np.argsort(-confidences, kind="stable")
    ranked = right[order][np.isfinite(confidences[order])]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].sum() / exhibits)


class MetMeasure(FirstAnswersMeasure):
    """GAP, GAP- and ACC of the test, by the classifier that is best on validation.

    Args:
        labels: (N,) of the gallery.
        asked: (Q,) of the queries, first those of the test; `NO_EXHIBIT` for photographs of none.
        tested: how many queries are of the test.
        grid: neighbours and temperatures to choose from.
    """

    name = ""

    def __init__(self, labels: IntArray, asked: IntArray, tested: int, grid: Sequence[tuple[int, float]]) -> None:
        self.labels, self.asked, self.tested = labels, asked, int(tested)
        self.grid = tuple((int(k), float(temperature)) for k, temperature in grid)
        self.classes = np.unique(labels)
        self.depth = max(k for k, _ in self.grid)

    def figures(self, truth: GroundTruth, rankings: Mapping[Difficulty, Ranked]) -> Figures:
        """The three figures; only ACC is a mean over queries. `answers` are those of the test."""
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
        """Neighbours and temperature: the first of the best on validation."""
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
        """Labels, and what there is to choose from."""
        return {"labels": self.labels, "asked": self.asked, "tested": self.tested, "grid": self.grid}

    def _answers(self, ranked: Ranked, queries: slice, neighbours: int, temperature: float) -> Answers:
        head, scores = ranked.top_k[queries, : self.depth], ranked.scores[queries, : self.depth]
        return classify(self.labels[np.maximum(head, 0)], scores, self.classes, neighbours, temperature)

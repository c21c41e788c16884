"""GLDv2's official tasks: retrieval from the index set, recognition by the training set (Weyand et al., CVPR 2020)."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import USAGES, Benchmark, Difficulty, Evaluation, Figures, GroundTruth, Measure, Ranked, Ranking
from dolglab.data.benchmarks.listing import NOTHING, Rules, make_benchmark
from dolglab.data.folder import rows_by_landmark
from dolglab.data.gldv2 import HINT, Kind, image_source, listed_ids, load_gldv2, open_csv, parse_ids
from dolglab.data.sources import GLDv2Source, JoinedSource
from dolglab.errors import UserError
from dolglab.io import csv_text
from dolglab.measures import (
    FirstAnswersMeasure,
    average_precision_at,
    gldv2_map_at_k,
    global_average_precision,
    mean_scores,
)

RETRIEVAL, RECOGNITION = "retrieval_solution_v2.1.csv", "recognition_solution_v2.1.csv"

SIZES = "not cropped, at their published size unless max_side limits it"
LEFT_OUT = "queries that the solution marks as ignored"
# As written in the solutions.
SOLUTION_USAGES = ("Public", "Private", "Ignored")

T = TypeVar("T")
A = TypeVar("A", bound=Collection)
# A query, its predicted landmark, and the score of the prediction; and the images found for each query.
Answers = tuple[tuple[int, int, float], ...]
Found = list[NDArray[np.int64]]


def gldv2_retrieval(
    root: str | Path, source: Kind = "auto", ignored: bool = False, name: str = "gldv2_retrieval"
) -> Benchmark:
    """The index images as gallery and the test images as queries, measured by mAP@100, Public and Private.

    Args:
        root: the folder with `index.csv`, the solution, `index/` and `test/`.
        source: how images are stored (see `image_source`).
        ignored: also rank the ignored queries, which a submission must include.
        name: the name in results.

    Raises UserError for a missing or invalid list, missing images, a positive that is not in the index, and a counted
    query without positives.
    """
    root = Path(root)
    path = _solution(root / RETRIEVAL, source)
    gallery = listed_ids(root, "index")
    queries, usages, answers = _queries(read_retrieval_solution(path), ignored)
    empty = [f"{q:016x}" for q, u, a in zip(queries.tolist(), usages, answers, strict=True) if u in USAGES and not a]
    if empty:
        raise UserError(f"{path}: the query {empty[0]} is not ignored but has no positives")
    positives = tuple(_places(images, gallery, path) for images in answers)
    images = image_source(root, "index", gallery, source), image_source(root, "test", queries, source)
    rules = Rules("mAP@100, precision at each hit, divided by min(100, positives)", SIZES, LEFT_OUT)
    return _benchmark(*images, usages, positives, GLDv2Retrieval(usages), name=name, rules=rules)


def gldv2_recognition(
    root: str | Path,
    train_csv: str = "train_clean.csv",
    source: Kind = "auto",
    neighbours: int = 5,
    ignored: bool = False,
    name: str = "gldv2_recognition",
) -> Benchmark:
    """The training images as gallery and the test images as queries, measured by GAP, Public and Private.

    Args:
        root: the folder with `train_csv`, the solution, `train/` and `test/`.
        train_csv: the list of the training images.
        source: how images are stored (see `image_source`).
        neighbours: number of nearest training images that vote, weighted by their cosines.
        ignored: also answer the ignored queries, which a submission must include.
        name: the name in results.

    Raises UserError for a missing or invalid list, missing images, and `neighbours` below 1.
    """
    path = _solution(Path(root) / RECOGNITION, source)
    if not isinstance(neighbours, int) or neighbours < 1:
        raise UserError(f"benchmark.neighbours must be a whole number above 0, not {neighbours}")
    training = load_gldv2(root, train_csv, kind=source)
    queries, usages, shown = _queries(read_recognition_solution(path), ignored)
    for usage in dict.fromkeys(usages.tolist()):
        if usage in USAGES and not any(one for one, of in zip(shown, usages, strict=True) if of == usage):
            raise UserError(f"{path}: no {usage} image shows a landmark, so GAP is undefined")
    landmarks = training.classes.astype(np.int64)[training.labels]
    members = rows_by_landmark(landmarks.astype(np.str_))
    positives = tuple(np.sort(np.concatenate([NOTHING, *(members.get(str(s), NOTHING) for s in one)])) for one in shown)
    assert isinstance(training.source, GLDv2Source)
    return _benchmark(
        training.source,
        image_source(root, "test", queries, source),
        usages,
        positives,
        GLDv2Recognition(usages, landmarks, shown, neighbours),
        name=f"{name}_top{neighbours}",
        gallery_is_training=True,
        rules=Rules(
            f"GAP, one answer per image, over images with a landmark; the {neighbours} nearest training images vote",
            SIZES,
            LEFT_OUT,
            "equal scores are ordered by image id",
        ),
        landmarks=landmarks,
        shown=tuple(shown),
    )


def read_retrieval_solution(path: str | Path) -> dict[str, dict[str, frozenset[str]]]:
    """For each usage, for each query, the index images of its landmark; an empty set if there are none.

    Raises UserError like `read_recognition_solution`.
    """
    return _read_solution(path, "images", lambda images: frozenset(() if images == "None" else images.split()))


def read_recognition_solution(path: str | Path) -> dict[str, dict[str, frozenset[int]]]:
    """For each usage, for each test image, the landmarks it shows, possibly none.

    Raises UserError for a missing file, a wrong header, a landmark that is not a number, an unknown usage, and an image
    that is listed twice.
    """
    return _read_solution(path, "landmarks", lambda landmarks: frozenset(map(int, landmarks.split())))


class GLDv2Measure(FirstAnswersMeasure):
    """The common part of retrieval and recognition: figures of the Public and the Private queries, and a submission.

    Args:
        usages: (Q,) "public", "private" or "ignored" for each query.
        depth: number of first answers that count.
    """

    name: str
    heading: str

    def __init__(self, usages: NDArray[np.str_], depth: int = 100) -> None:
        self.usages = usages
        self.depth = int(depth)

    def figures(self, truth: GroundTruth, rankings: Mapping[Difficulty, Ranked]) -> Figures:
        """For each usage, `map` (mAP@100 or GAP), `ap` (of each query over the first answers, NaN for queries of
        another usage or without positives), and an empty `mp_at_k`."""
        ranked = next(iter(rankings.values()))
        found = [head[head >= 0] for head in ranked.top_k[:, : self.depth]]
        answers = self.answers(found, ranked.scores)
        ap = np.full(len(found), np.nan)
        for query, (images, positives) in enumerate(zip(found, truth.easy, strict=True)):
            if len(positives):
                ap[query] = average_precision_at(_texts(images), frozenset(_texts(positives)), self.depth)
        evaluation: Evaluation = {
            usage: mean_scores(
                np.where(self.usages == usage, ap, np.nan),
                self.value(truth, found, answers, np.flatnonzero(self.usages == usage).tolist()),
            )
            for usage in rankings
        }
        return Figures(evaluation, answers=answers)

    def answers(self, found: Found, scores: NDArray[np.float32]) -> Answers:
        """The prediction for each query: (query, landmark, score)."""
        return ()

    def value(self, truth: GroundTruth, found: Found, answers: Answers, queries: list[int]) -> float:
        """The figure for some queries."""
        raise NotImplementedError

    def submission(self, ranking: Ranking) -> str:
        """A csv file in Kaggle's format; a query that could not be read has a row without an answer."""
        answers = self.rows(ranking)
        queries = enumerate(ranking.benchmark.queries.tolist())
        return csv_text(
            [("id", self.heading), *((_image_id(ranking, query), answers.get(row, "")) for row, query in queries)]
        )

    def rows(self, ranking: Ranking) -> dict[int, str]:
        """The answer to each query in a submission."""
        raise NotImplementedError


class GLDv2Retrieval(GLDv2Measure):
    """mAP@100; a submission has up to 100 images per query, best first."""

    name = "mAP@100"
    heading = "images"

    def settings(self) -> dict[str, object]:
        """The arguments of the constructor."""
        return {"usages": self.usages, "depth": self.depth}

    def value(self, truth: GroundTruth, found: Found, answers: Answers, queries: list[int]) -> float:
        """The mAP@100 of these queries."""
        return gldv2_map_at_k(
            {str(query): _texts(found[query]) for query in queries},
            {str(query): frozenset(_texts(truth.easy[query])) for query in queries},
            self.depth,
        )

    def rows(self, ranking: Ranking) -> dict[int, str]:
        """The ids of the images found."""
        return {
            row: " ".join(_image_id(ranking, position) for position in found.tolist() if position >= 0)
            for row, found in enumerate(ranking.top)
        }


class GLDv2Recognition(GLDv2Measure):
    """GAP: the answer to a query is the landmark with the highest sum of cosines over the nearest gallery images.

    Args:
        landmarks: (N,) landmark of each gallery image.
        shown: the landmarks of each query, in any order; negative numbers are padding.
        neighbours: number of nearest images that vote.
    """

    name = "GAP"
    heading = "landmarks"

    def __init__(
        self, usages: NDArray[np.str_], landmarks: NDArray[np.int64], shown: Iterable[Iterable[int]], neighbours: int
    ) -> None:
        super().__init__(usages, neighbours)
        self.landmarks = landmarks
        self.shown = tuple(frozenset(int(landmark) for landmark in one if landmark >= 0) for one in shown)

    def settings(self) -> dict[str, object]:
        """The arguments of the constructor; `shown` is padded with -1."""
        most = max(map(len, self.shown), default=0)
        shown = [[*sorted(one), *[-1] * (most - len(one))] for one in self.shown]
        return {"usages": self.usages, "landmarks": self.landmarks, "shown": shown, "neighbours": self.depth}

    def answers(self, found: Found, scores: NDArray[np.float32]) -> Answers:
        """The landmark that the nearest images vote for."""
        return tuple(
            (query, *voted(self.landmarks[images], scores[query, : len(images)]))
            for query, images in enumerate(found)
            if len(images)
        )

    def value(self, truth: GroundTruth, found: Found, answers: Answers, queries: list[int]) -> float:
        """The GAP of these queries. Zero-padded positions of queries order equal scores like the queries' ids."""
        wanted = set(queries)
        predictions = {f"{query:09}": (landmark, score) for query, landmark, score in answers if query in wanted}
        return global_average_precision(predictions, {f"{query:09}": self.shown[query] for query in queries})

    def rows(self, ranking: Ranking) -> dict[int, str]:
        """The landmark and its score."""
        return {row: f"{landmark} {score:.8f}" for row, landmark, score in ranking.answers}


def voted(landmarks: NDArray[np.int64], scores: NDArray[np.float32]) -> tuple[int, float]:
    """The landmark with the highest sum of scores, and that sum; with equal sums, the lower number.

    `landmarks` and `scores` are those of a query's nearest images, (k,) each.
    """
    voters, place = np.unique(landmarks, return_inverse=True)
    sums = np.bincount(place, scores.astype(np.float64))
    best = int(sums.argmax())
    return int(voters[best]), float(sums[best])


def _texts(positions: NDArray[np.int64]) -> list[str]:
    return [str(position) for position in positions.tolist()]


def _image_id(ranking: Ranking, position: int) -> str:
    return PurePosixPath(ranking.benchmark.source.name(position)).stem


def _solution(path: Path, source: Kind) -> Path:
    """The path. Raises UserError if the file is missing, and for a source that has only training images."""
    if source == "packed":
        raise UserError("benchmark.source=packed: only training images are packed; use auto, tar or folder")
    if not path.is_file():
        raise UserError(f"{path} is missing; {HINT.format(root=path.parent)} (split=test)")
    return path


def _queries(
    solution: Mapping[str, Mapping[str, A]], ignored: bool
) -> tuple[NDArray[np.uint64], NDArray[np.str_], list[A]]:
    """Ids, usages in lower case, and answers of the queries, by ascending id."""
    rows = [
        (query, usage.lower(), answer)
        for usage, answers in solution.items()
        if ignored or usage.lower() in USAGES
        for query, answer in answers.items()
    ]
    if not any(usage in USAGES for _, usage, _ in rows):
        raise UserError("the solution has no Public or Private query")
    rows.sort(key=lambda row: row[0])
    ids = parse_ids([query for query, _, _ in rows], "the solution's queries")
    return ids, np.array([usage for _, usage, _ in rows], np.str_), [answer for _, _, answer in rows]


def _places(images: Collection[str], gallery: NDArray[np.uint64], path: Path) -> NDArray[np.int64]:
    """Ascending positions in the gallery, whose ids ascend."""
    ids = np.sort(parse_ids(sorted(images), path))
    found = np.searchsorted(gallery, ids)
    there = gallery[np.minimum(found, len(gallery) - 1)] == ids
    if not there.all():
        raise UserError(f"{path}: the positive {int(ids[~there][0]):016x} is not in index.csv")
    return found.astype(np.int64)


def _benchmark(
    gallery: GLDv2Source,
    queries: GLDv2Source,
    usages: NDArray[np.str_],
    positives: tuple[NDArray[np.int64], ...],
    measure: Measure,
    name: str,
    rules: Rules,
    shown: tuple[frozenset[int], ...] = (),
    landmarks: NDArray[np.int64] = NOTHING,
    **about: Any,
) -> Benchmark:
    counts = np.array([len(part) for part in positives])
    digest = hashlib.sha256()
    for part in (gallery.ids, queries.ids, usages.astype("S7"), landmarks, counts, *positives):
        digest.update(np.ascontiguousarray(part).data)
    # For recognition also landmarks that are not in the gallery.
    digest.update(repr([sorted(one) for one in shown]).encode())
    return make_benchmark(
        name,
        source=JoinedSource(gallery, queries),
        num_gallery=len(gallery),
        queries=np.arange(len(gallery), len(gallery) + len(queries)),
        positives=positives,
        digest=digest.hexdigest()[:16],
        measure=measure,
        difficulties=[usage for usage in USAGES if (usages == usage).any()],
        rules=rules,
        **about,
    )


def _read_solution(
    path: str | Path, answers: str, parse: Callable[[str], frozenset[T]]
) -> dict[str, dict[str, frozenset[T]]]:
    """For each usage, each row's answers by its id."""
    columns = ("id", answers, "Usage")
    found: dict[str, dict[str, frozenset[T]]] = {usage: {} for usage in SOLUTION_USAGES}
    seen: set[str] = set()
    path = Path(path)
    with open_csv(path) as file:
        rows = csv.DictReader(file)
        if not set(columns) <= set(rows.fieldnames or ()):
            raise UserError(f"{path} needs the columns {','.join(columns)}, but has {rows.fieldnames or 'none'}")
        for row in rows:
            name, answer, usage = (str(row[column] or "").strip() for column in columns)
            if usage not in SOLUTION_USAGES:
                raise UserError(f"{path}, image {name}: the usage {usage!r} is not one of {', '.join(SOLUTION_USAGES)}")
            if name in seen:
                raise UserError(f"{path}: the image {name} is listed more than once")
            seen.add(name)
            try:
                found[usage][name] = parse(answer)
            except ValueError as error:
                raise UserError(f"{path}, image {name}: {answer!r} is not a list of landmark ids") from error
    return found

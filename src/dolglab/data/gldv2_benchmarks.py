"""GLDv2's own evaluations: retrieval in the index set, recognition by the training set (Weyand et al., CVPR 2020)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import USAGES, GLDv2Benchmark, GroundTruth
from dolglab.data.folder import rows_by_landmark
from dolglab.data.gldv2 import HINT, Kind, image_source, listed_ids, load_gldv2
from dolglab.data.gldv2_tables import id_bytes, id_numbers, read_recognition_solution, read_retrieval_solution
from dolglab.data.sources import GLDv2Source, JoinedSource
from dolglab.errors import UserError

RETRIEVAL, RECOGNITION = "retrieval_solution_v2.1.csv", "recognition_solution_v2.1.csv"
NOTHING = np.empty(0, np.int64)

A = TypeVar("A", bound=Collection)


def gldv2_retrieval(
    root: str | Path, source: Kind = "auto", ignored: bool = False, name: str = "gldv2_retrieval"
) -> GLDv2Benchmark:
    """The index images as gallery and the test images as queries, measured by mAP@100, Public and Private.

    Args:
        root: the folder with `index.csv`, the solution, `index/` and `test/`.
        source: how images lie there (see `image_source`).
        ignored: rank also the queries that count for nothing, which a submission must name.
        name: what results call it.

    Raises:
        UserError: a missing or wrong list, images that are not there, a positive that is not in the index, a counted
            query without positives.
    """
    root = _published(root, source)
    gallery = listed_ids(root, "index")
    solution = read_retrieval_solution(_solution(root, RETRIEVAL))
    queries, usages, answers = _queries(solution, ignored)
    empty = [f"{q:016x}" for q, u, a in zip(queries.tolist(), usages, answers, strict=True) if u in USAGES and not a]
    if empty:
        raise UserError(f"{root / RETRIEVAL}: the query {empty[0]} counts but has no positives")
    positives = tuple(_places(images, gallery, root / RETRIEVAL) for images in answers)
    images = image_source(root, "index", gallery, source), image_source(root, "test", queries, source)
    return _benchmark(*images, usages, positives, name=name, measure="mAP@100")


def gldv2_recognition(
    root: str | Path,
    train_csv: str = "train_clean.csv",
    source: Kind = "auto",
    neighbours: int = 5,
    ignored: bool = False,
    name: str = "gldv2_recognition",
) -> GLDv2Benchmark:
    """The training images as gallery and the test images as queries, measured by GAP, Public and Private.

    Args:
        root: the folder with `train_csv`, the solution, `train/` and `test/`.
        train_csv: the list of training images whose landmarks answer.
        source: how images lie there (see `image_source`).
        neighbours: how many nearest training images vote, with their cosines.
        ignored: answer also the queries that count for nothing, which a submission must name.
        name: what results call it.

    Raises:
        UserError: a missing or wrong list, images that are not there, `neighbours` below 1.
    """
    root = _published(root, source)
    if not isinstance(neighbours, int) or neighbours < 1:
        raise UserError(f"benchmark.neighbours must be a whole number above 0, not {neighbours}")
    training = load_gldv2(root, train_csv, kind=source)
    queries, usages, shown = _queries(read_recognition_solution(_solution(root, RECOGNITION)), ignored)
    for usage in dict.fromkeys(usages.tolist()):
        if usage in USAGES and not any(one for one, of in zip(shown, usages, strict=True) if of == usage):
            raise UserError(f"{root / RECOGNITION}: no {usage} image shows a landmark, so that there is no GAP")
    landmarks = training.classes.astype(np.int64)[training.labels]
    members = rows_by_landmark(landmarks.astype(np.str_))
    positives = tuple(np.sort(np.concatenate([NOTHING, *(members.get(str(s), NOTHING) for s in one)])) for one in shown)
    assert isinstance(training.source, GLDv2Source)
    return _benchmark(
        training.source,
        image_source(root, "test", queries, source),
        usages,
        positives,
        name=f"{name}_top{neighbours}",
        measure="GAP",
        landmarks=landmarks,
        shown=tuple(shown),
        neighbours=neighbours,
    )


def _published(root: str | Path, source: Kind) -> Path:
    if source == "packed":
        raise UserError("benchmark.source=packed: only training images are packed; take auto, tar or folder")
    return Path(root)


def _solution(root: Path, name: str) -> Path:
    if not (root / name).is_file():
        raise UserError(f"{root / name} is missing; {HINT.format(root=root)} (split=test)")
    return root / name


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
        raise UserError("the solution has no query that counts, Public or Private")
    rows.sort(key=lambda row: row[0])
    try:
        ids = id_numbers(id_bytes([query for query, _, _ in rows]))
    except ValueError as error:
        raise UserError(f"the solution's queries: {error}") from error
    return ids, np.array([usage for _, usage, _ in rows], np.str_), [answer for _, _, answer in rows]


def _places(images: Collection[str], gallery: NDArray[np.uint64], path: Path) -> NDArray[np.int64]:
    """Ascending positions in the gallery, whose ids ascend."""
    try:
        ids = np.sort(id_numbers(id_bytes(sorted(images))))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
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
    shown: tuple[frozenset[int], ...] = (),
    landmarks: NDArray[np.int64] = NOTHING,
    **about: object,
) -> GLDv2Benchmark:
    none = (NOTHING,) * len(queries)
    counts = np.array([len(part) for part in positives])
    digest = hashlib.sha256()
    for part in (gallery.ids, queries.ids, usages.astype("S7"), landmarks, counts, *positives):
        digest.update(np.ascontiguousarray(part).data)
    # Of recognition also what the gallery does not show.
    digest.update(repr([sorted(one) for one in shown]).encode())
    return GLDv2Benchmark(
        source=JoinedSource(gallery, queries),
        num_gallery=len(gallery),
        queries=np.arange(len(gallery), len(gallery) + len(queries)),
        boxes=np.full((len(queries), 4), np.nan),
        ground_truth=GroundTruth(easy=positives, hard=none, junk=none),
        crop="none",
        digest=digest.hexdigest()[:16],
        difficulties=tuple(usage for usage in USAGES if (usages == usage).any()),
        usages=usages,
        shown=shown,
        landmarks=landmarks,
        **about,  # pyright: ignore[reportArgumentType]
    )

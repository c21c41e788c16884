"""Which images of a training set are trained on: lists that are left out, categories, and caps."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import TrainingSet
from dolglab.data.gldv2_tables import id_bytes, id_numbers, open_csv
from dolglab.data.sources import GLDv2Source, hash_share
from dolglab.errors import UserError


def select(
    training: TrainingSet,
    exclude_landmarks: str | Path | None = None,
    exclude_images: str | Path | Sequence[str | Path] | None = None,
    categories: Mapping[str, object] | None = None,
    category_csv: str | Path = "",
    cap: int | None = None,
    seed: int = 0,
) -> TrainingSet:
    """What is left after landmarks and images that files list, landmarks of other categories, and then a cap.

    Of images there may be several lists, such as a scan's and one's own.

    Raises UserError as the functions below, and when nothing is left.
    """
    rows = np.ones(len(training), np.bool_)
    if exclude_landmarks:
        rows &= without_landmarks(training, exclude_landmarks)
    for path in [exclude_images] if isinstance(exclude_images, str | Path) else exclude_images or ():
        rows &= without_images(training, path)
    if categories:
        rows &= of_categories(training, category_csv, categories)
    training = training if rows.all() else subset(training, rows)
    return training if cap is None else subset(training, capped(training, cap, seed))


def subset(training: TrainingSet, rows: NDArray[np.bool_]) -> TrainingSet:
    """The images for which `rows` holds; landmarks without any are no classes any more.

    Raises UserError when nothing is left.
    """
    if not rows.any():
        raise UserError("after the exclusions, categories and caps no training image is left")
    chosen = np.flatnonzero(rows)
    classes, labels = np.unique(training.labels[chosen], return_inverse=True)
    source = training.source
    assert isinstance(source, GLDv2Source)
    return TrainingSet(source.take(chosen), training.ids[chosen], labels.astype(np.int64), training.classes[classes])


def without_landmarks(training: TrainingSet, path: str | Path) -> NDArray[np.bool_]:
    """The images of other landmarks than those a file lists, one a line."""
    return ~np.isin(training.classes, np.array(_lines(path), np.str_))[training.labels]


def without_images(training: TrainingSet, path: str | Path) -> NDArray[np.bool_]:
    """The images other than those a file lists, 16 hex digits a line. Raises UserError for another line."""
    try:
        listed = id_numbers(id_bytes(_lines(path)))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return ~np.isin(training.ids, listed)


def of_categories(training: TrainingSet, path: str | Path, wanted: Mapping[str, object]) -> NDArray[np.bool_]:
    """The images of landmarks whose row in a label csv has, in each column of `wanted`, the value or one of the values.

    Raises UserError for no such file, a column it does not have, or a value that no landmark has.
    """
    path = Path(path)
    with open_csv(path) as file:
        rows = list(csv.DictReader(file))
    found = np.ones(len(training.classes), np.bool_)
    for column, value in wanted.items():
        values = {str(v) for v in value} if isinstance(value, Sequence) and not isinstance(value, str) else {str(value)}
        if not rows or not {column, "landmark_id"} <= rows[0].keys():
            raise UserError(f"{path} has no column {column}; it has {', '.join(rows[0]) if rows else 'no rows'}")
        unknown = values - {row[column] for row in rows}
        if unknown:
            raise UserError(f"{path}: no landmark has {column}={sorted(unknown)[0]}")
        names = [row["landmark_id"] for row in rows if row[column] in values]
        found &= np.isin(training.classes, np.array(names, np.str_))
    return found[training.labels]


def capped(training: TrainingSet, cap: int, seed: int) -> NDArray[np.bool_]:
    """At most so many images of each landmark, chosen by a hash of their ids. Raises UserError below 1."""
    if cap < 1:
        raise UserError(f"data.cap must be at least 1, not {cap}")
    order = np.lexsort((hash_share(training.ids, seed), training.labels))
    rows = np.zeros(len(order), np.bool_)
    rows[order[rank_within_class(training.labels[order]) < cap]] = True
    return rows


def rank_within_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of ascending labels, each one's place among those of its class, from 0.

    >>> rank_within_class(np.array([2, 2, 2, 5, 9, 9])).tolist()
    [0, 1, 2, 0, 0, 1]
    """
    return np.arange(len(labels)) - np.searchsorted(labels, labels)


def _lines(path: str | Path) -> list[str]:
    """The lines of a list, without blanks and what follows a #."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list: {error}") from error
    return [line for line in (line.split("#")[0].strip() for line in text.splitlines()) if line]

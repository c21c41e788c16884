"""The published solutions of GLDv2's retrieval and recognition tasks, by usage: Public, Private, Ignored."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from src.contracts import InputError
from src.data.gldv2_tables import open_csv

USAGES = ("Public", "Private", "Ignored")


def read_retrieval_solution(path: str | Path) -> dict[str, dict[str, frozenset[str]]]:
    """For each usage, for each query, the index images of its landmark; queries of none have an empty set.

    Raises InputError as `read_recognition_solution`.
    """
    found: dict[str, dict[str, frozenset[str]]] = {usage: {} for usage in USAGES}
    for query, images, usage in _rows(Path(path), "images"):
        found[usage][query] = frozenset(() if images == "None" else images.split())
    return found


def read_recognition_solution(path: str | Path) -> dict[str, dict[str, frozenset[int]]]:
    """For each usage, for each test image, the landmarks it shows; none is an empty set.

    Raises InputError for a missing file, another header, a landmark that is no number, an unknown usage, an image
    listed twice.
    """
    found: dict[str, dict[str, frozenset[int]]] = {usage: {} for usage in USAGES}
    for image, landmarks, usage in _rows(Path(path), "landmarks"):
        try:
            found[usage][image] = frozenset(map(int, landmarks.split()))
        except ValueError as error:
            raise InputError(f"{path}, image {image}: {landmarks!r} are no landmark ids") from error
    return found


def _rows(path: Path, answers: str) -> Iterator[tuple[str, str, str]]:
    """Each row's id, answers and usage."""
    columns = ("id", answers, "Usage")
    seen: set[str] = set()
    with open_csv(path) as file:
        rows = csv.DictReader(file)
        if not set(columns) <= set(rows.fieldnames or ()):
            raise InputError(f"{path}: needs the columns {','.join(columns)}; it has {rows.fieldnames or 'none'}")
        for row in rows:
            name, answer, usage = (str(row[column] or "").strip() for column in columns)
            if usage not in USAGES:
                raise InputError(f"{path}, image {name}: the usage {usage!r} is none of {', '.join(USAGES)}")
            if name in seen:
                raise InputError(f"{path}: the image {name} is listed more than once")
            seen.add(name)
            yield name, answer, usage

"""The ground truth of Revisited Oxford and Paris, read from the published pickles without running code in them."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import GroundTruth
from dolglab.errors import UserError, truncate_list


@dataclass(frozen=True)
class RevisitedLists:
    """What a `gnd_*.pkl` holds: names without extension, query boxes (Q, 4) in pixels, ground truth."""

    gallery: tuple[str, ...]
    queries: tuple[str, ...]
    boxes: NDArray[np.float64]
    ground_truth: GroundTruth


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain containers, numbers and strings; a pickle that names any code is refused."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        advice = "; numpy's arrays and numbers become plain with .tolist()" if module_name.startswith("numpy") else ""
        raise UserError(
            f"it asks for code ({module_name}.{global_name}), and only plain lists and numbers are read{advice}"
        )


def load_ground_truth(path: str | Path) -> RevisitedLists:
    """Read a ground-truth pickle without running any code in it.

    A query without positives and empty lists are as they should be: `revisited_evaluation` leaves such a query out.

    Raises:
        UserError: no such file, a pickle with code (numpy arrays are code), missing keys, positions outside the
            gallery or no whole numbers, lists of a query that overlap, a box without pixels, or a name that the gallery
            or the queries list twice.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"ground truth not found: {path} (benchmark.ground_truth=FILE)")
    try:
        with path.open("rb") as file:
            raw = _PlainUnpickler(file, encoding="latin1").load()
    except UserError as error:
        raise UserError(f"{path} is refused: {error}") from None
    except Exception as error:
        raise UserError(f"{path} is not a ground-truth pickle ({type(error).__name__})") from error
    try:
        return _parse(raw)
    except KeyError as error:
        raise UserError(f"{path} is not a Revisited ground truth: {error} is missing") from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a Revisited ground truth: {error}") from error


def subset_lists(lists: RevisitedLists, gallery: NDArray[np.bool_], queries: NDArray[np.bool_]) -> RevisitedLists:
    """The lists without some gallery images and queries: positions follow their images, those of no image are gone.

    `gallery` and `queries` say which are kept. A query may be left without positives.
    """
    place = np.cumsum(gallery) - 1
    kept = np.flatnonzero(queries)

    def remap(parts: tuple[NDArray[np.int64], ...]) -> tuple[NDArray[np.int64], ...]:
        return tuple(place[parts[query][gallery[parts[query]]]] for query in kept)

    truth = lists.ground_truth
    return RevisitedLists(
        gallery=tuple(lists.gallery[row] for row in np.flatnonzero(gallery)),
        queries=tuple(lists.queries[row] for row in kept),
        boxes=lists.boxes[kept],
        ground_truth=GroundTruth(*map(remap, (truth.easy, truth.hard, truth.junk))),
    )


def queries_in_gallery(lists: RevisitedLists) -> list[str]:
    """Queries that the gallery holds too, and that are no junk to themselves: they find their own photo first."""
    place = {name: row for row, name in enumerate(lists.gallery)}
    junk = lists.ground_truth.junk
    return [name for query, name in enumerate(lists.queries) if name in place and place[name] not in junk[query]]


def _parse(raw: Any) -> RevisitedLists:
    if not isinstance(raw, dict):
        raise ValueError(f"it holds a {type(raw).__name__}, not a dict of imlist, qimlist and gnd")
    gallery, queries, entries = _names(raw, "imlist"), _names(raw, "qimlist"), raw["gnd"]
    if not gallery or not queries or len(queries) != len(entries):
        raise ValueError(f"{len(gallery)} gallery images, {len(queries)} queries, {len(entries)} ground truths")
    for query, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"query {query} ({queries[query]}) has a {type(entry).__name__} for a ground truth")
    boxes = np.array([_box(entry.get("bbx")) for entry in entries], np.float64).reshape(-1, 4)
    x1, y1, x2, y2 = boxes.T
    sound = np.isfinite(boxes).all(1) & (x1 < x2) & (y1 < y2)
    for query in np.flatnonzero(~sound & ~np.isnan(boxes).all(1)):
        raise ValueError(f"query {query} ({queries[query]}) has the box {boxes[query].tolist()}")
    ground_truth = GroundTruth(*(_positions(entries, key, len(gallery)) for key in ("easy", "hard", "junk")))
    for query, parts in enumerate(zip(ground_truth.easy, ground_truth.hard, ground_truth.junk, strict=True)):
        together = np.concatenate(parts)
        if len(np.unique(together)) != len(together):
            raise ValueError(f"query {query} ({queries[query]}) lists an image in two of easy, hard and junk, or twice")
    return RevisitedLists(gallery, queries, boxes, ground_truth)


def _names(raw: dict[str, Any], key: str) -> tuple[str, ...]:
    names = raw[key]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key} is no list of names")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        # Results and descriptors name images: two queries in one photo need two files.
        raise ValueError(f"{key} lists names more than once: {truncate_list(repeated)}")
    return tuple(names)


def _box(given: Any) -> list[float]:
    """A box's edges; NaN where there is none."""
    box = given or [float("nan")] * 4
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(isinstance(edge, int | float) for edge in box):
        raise ValueError(f"the box {given} is not x1, y1, x2, y2")
    return list(box)


def _positions(entries: list[dict[str, Any]], key: str, size: int) -> tuple[NDArray[np.int64], ...]:
    lists: list[NDArray[np.int64]] = []
    for query, entry in enumerate(entries):
        part = np.asarray(entry[key]).reshape(-1)
        if len(part) and part.dtype.kind not in "iu":
            raise ValueError(f"query {query} lists {key} positions that are no whole numbers ({part.dtype})")
        outside = part[(part < 0) | (part >= size)]
        if len(outside):
            raise ValueError(f"query {query} lists {key} position {outside[0]} of a gallery of {size}")
        lists.append(part.astype(np.int64))
    return tuple(lists)

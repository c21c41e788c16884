"""Revisited Oxford and Paris: ground truth, images and query boxes (Radenovic et al., CVPR 2018)."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, Crop, Difficulty, GroundTruth, InputError
from src.data.classes import digest
from src.data.sources import FolderSource, file_size

# Which release of the photographs a folder holds.
RELEASE = "release.json"
CROPS: tuple[Crop, ...] = ("pil", "trunc", "none")


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
        raise InputError(f"it asks for code ({module_name}.{global_name}); only plain lists and numbers are read")


def load_ground_truth(path: str | Path) -> RevisitedLists:
    """Read a ground-truth pickle without running any code in it.

    Raises:
        InputError: no such file, a pickle with code, missing keys, positions outside the gallery, lists of a
            query that overlap, a box without pixels, or duplicate names.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"ground truth not found: {path} (benchmark.ground_truth=FILE)")
    try:
        with path.open("rb") as file:
            raw = _PlainUnpickler(file, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path} is refused: {error}") from None
    except Exception as error:
        raise InputError(f"{path} is not a ground-truth pickle ({type(error).__name__})") from error
    try:
        return _parse(raw)
    except KeyError as error:
        raise InputError(f"{path} is not a Revisited ground truth: {error} is missing") from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is not a Revisited ground truth: {error}") from error


def revisited_benchmark(
    root: str | Path,
    ground_truth: str | Path | None = None,
    name: str | None = None,
    crop: Crop = "pil",
    hint: str = "benchmark.root=DIR with jpg/ and gnd_*.pkl",
) -> Benchmark:
    """A benchmark in the Revisited layout.

    Args:
        root: folder with `jpg/NAME.jpg` and the ground truth.
        ground_truth: its file; by default the one `gnd_*.pkl` in `root`.
        name: what results call it; by default the ground truth's name without `gnd_`.
        crop: how queries are cut to their boxes (see `crop_query`).
        hint: what the message says where there is no such folder.

    Raises:
        InputError: a missing folder, file or image, or a crop rule that does not exist.
    """
    root = Path(root)
    if crop not in CROPS:
        raise InputError(f"crop must be one of {', '.join(CROPS)}, not {crop}")
    if not root.is_dir():
        raise InputError(f"benchmark folder not found: {root} ({hint})")
    file = Path(ground_truth) if ground_truth else _only_ground_truth(root)
    lists = load_ground_truth(file)
    names = [f"jpg/{image}.jpg" for image in (*lists.gallery, *lists.queries)]
    sizes = _file_sizes(root, names)
    gallery, queries = len(lists.gallery), len(lists.queries)
    return Benchmark(
        name=name or file.stem.removeprefix("gnd_"),
        source=FolderSource(root, names),
        num_gallery=gallery,
        queries=np.arange(gallery, gallery + queries),
        boxes=lists.boxes,
        ground_truth=lists.ground_truth,
        crop=crop,
        digest=digest(names, sizes, lists.ground_truth),
        release=_release(root / RELEASE),
    )


def _release(path: Path) -> str | None:
    """What preparation noted of the photographs' origin; None where they came another way."""
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_text())["release"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not say which release this is: delete it if you do not know") from error


def _file_sizes(root: Path, names: list[str]) -> list[int]:
    sizes = [file_size(root / name) for name in names]
    missing = [name for name, size in zip(names, sizes, strict=True) if size is None]
    if missing:
        raise InputError(f"{len(missing)} of {len(names)} images are not in {root}, the first is {missing[0]}")
    return [size for size in sizes if size is not None]


def _only_ground_truth(root: Path) -> Path:
    found = sorted(root.glob("gnd_*.pkl"))
    if len(found) != 1:
        what = "no gnd_*.pkl" if not found else f"{len(found)} files gnd_*.pkl"
        raise InputError(f"{what} in {root}: name one with benchmark.ground_truth=FILE")
    return found[0]


def _parse(raw: Any) -> RevisitedLists:
    gallery, queries, entries = tuple(raw["imlist"]), tuple(raw["qimlist"]), raw["gnd"]
    if not gallery or not queries or len(queries) != len(entries):
        raise ValueError(f"{len(gallery)} gallery images, {len(queries)} queries, {len(entries)} ground truths")
    repeated = [name for name, count in Counter(gallery).items() if count > 1]
    if repeated:
        raise ValueError(f"the gallery lists {repeated[0]} more than once")
    boxes = np.array([entry.get("bbx") or [np.nan] * 4 for entry in entries], np.float64).reshape(-1, 4)
    _check_boxes(boxes, queries)
    ground_truth = GroundTruth(
        easy=_positions(entries, "easy", len(gallery)),
        hard=_positions(entries, "hard", len(gallery)),
        junk=_positions(entries, "junk", len(gallery)),
    )
    _check_disjoint(ground_truth, queries)
    return RevisitedLists(gallery, queries, boxes, ground_truth)


def _check_boxes(boxes: NDArray[np.float64], queries: tuple[str, ...]) -> None:
    x1, y1, x2, y2 = boxes.T
    sound = np.isfinite(boxes).all(1) & (x1 < x2) & (y1 < y2)
    for query in np.flatnonzero(~sound & ~np.isnan(boxes).all(1)):
        raise ValueError(f"query {query} ({queries[query]}) has the box {boxes[query].tolist()}")


def _positions(entries: list[dict[str, Any]], key: Difficulty | str, size: int) -> tuple[NDArray[np.int64], ...]:
    raw = [np.asarray(entry[key]).reshape(-1) for entry in entries]
    for query, part in enumerate(raw):
        if len(part) and part.dtype.kind not in "iu":
            raise ValueError(f"query {query} lists {key} positions that are no whole numbers")
    lists = tuple(part.astype(np.int64) for part in raw)
    for query, part in enumerate(lists):
        outside = part[(part < 0) | (part >= size)]
        if len(outside):
            raise ValueError(f"query {query} lists {key} position {outside[0]} of a gallery of {size}")
    return lists


def _check_disjoint(ground_truth: GroundTruth, queries: tuple[str, ...]) -> None:
    for query, parts in enumerate(zip(ground_truth.easy, ground_truth.hard, ground_truth.junk, strict=True)):
        together = np.concatenate(parts)
        if len(np.unique(together)) != len(together):
            raise ValueError(f"query {query} ({queries[query]}) lists an image in two of easy, hard and junk, or twice")

"""A folder with one sub-folder per landmark, split into training and held-out photos, or as one benchmark."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, GroundTruth, ImageSource, TrainingSet
from dolglab.data.sources import (
    IMAGE_SUFFIXES,
    FolderSource,
    encode_names,
    first_copies,
    is_image,
    is_visible,
    stable_ids,
)
from dolglab.errors import UserError, pluralize, truncate_list
from dolglab.measures import RevisitedMeasure
from dolglab.processes import main_process


def class_benchmark(name: str, source: ImageSource, landmarks: NDArray[np.str_]) -> Benchmark:
    """The images of `source`, labelled with their landmarks, as both queries and gallery.

    Each query is junk to itself; there is only one difficulty, reported as Medium.
    Raises UserError if no landmark has two images.
    """
    rows = np.arange(len(source))
    members = rows_by_landmark(landmarks)
    others = tuple(members[landmark][members[landmark] != row] for row, landmark in enumerate(landmarks.tolist()))
    if not any(len(part) for part in others):
        raise UserError(f"{name}: no landmark has two photos, so there is nothing to find")
    truth = GroundTruth(
        easy=others, hard=(np.empty(0, np.int64),) * len(rows), junk=tuple(rows[row : row + 1] for row in rows)
    )
    names = [source.name(row) for row in range(len(source))]
    return Benchmark(
        name=name,
        source=source,
        num_gallery=len(rows),
        queries=rows,
        boxes=np.full((len(rows), 4), np.nan),
        ground_truth=truth,
        crop="none",
        digest=digest(names, [source.size(row) for row in range(len(source))], truth),
        measure=RevisitedMeasure(),
        difficulties=("medium",),
    )


def rows_by_landmark(landmarks: NDArray[np.str_]) -> dict[str, NDArray[np.int64]]:
    """The rows of each landmark, ascending, by a single sort."""
    names, labels = np.unique(landmarks, return_inverse=True)
    rows = np.argsort(labels, kind="stable")
    parts = np.split(rows, np.searchsorted(labels[rows], np.arange(1, len(names))))
    return dict(zip(names.tolist(), parts, strict=True)) if len(names) else {}


def digest(names: list[str], sizes: list[int], ground_truth: GroundTruth) -> str:
    """A short fingerprint of a benchmark: image names, file sizes in bytes, and ground truth."""
    lists = [[part.tolist() for part in kind] for kind in (ground_truth.easy, ground_truth.hard, ground_truth.junk)]
    return hashlib.sha256(json.dumps([names, sizes, lists]).encode()).hexdigest()[:16]


SplitMode = Literal["photos", "landmarks"]
# In addition to 0, 1 and 2, the parts of a split.
LEFT_OUT = 3
SEEN = "its landmarks are those of the training photos"


@dataclass(frozen=True)
class Photos:
    """The photos below a root: relative paths in a stable order, and their landmarks."""

    root: Path
    names: list[str]
    landmarks: NDArray[np.str_]


def scan_folder(root: str | Path) -> Photos:
    """Every image in a sub-folder of `root`, or in a folder outside `root` that is linked there.

    Raises UserError if there is no folder or no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"folder not found: {root} (data.root=DIR with one sub-folder per landmark)")
    landmarks, links = _landmark_folders(root)
    names, ignored, closed = _walk(root, landmarks)
    if ignored:
        kinds = " ".join(sorted({Path(name).suffix.lower() or "(no suffix)" for name in ignored})[:8])
        _say(f"{root}: {len(ignored)} files are not images of a supported format and are left out ({kinds})")
    if links:
        _say(f"{root}: {pluralize(len(links), 'link')} back into the folder are ignored: {truncate_list(links)}")
    if closed:
        _say(f"{root}: {pluralize(len(closed), 'folder')} cannot be read: {truncate_list(closed)}")
    if not names:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"no images in the sub-folders of {root}: use one sub-folder per landmark, files {kinds}")
    names = sorted(names)
    return Photos(root, names, np.array([name.split("/", 1)[0] for name in names], np.str_))


def split_folder(
    root: str | Path, mode: SplitMode = "photos", validation: float = 0.2, test: float = 0.2, seed: int = 0
) -> tuple[TrainingSet, Benchmark, Benchmark]:
    """Training set, validation and test benchmark of a folder.

    Exact copies of a photo (files with the same bytes) never end up in different parts. In mode "photos", all copies
    are in the part of the first one. In mode "landmarks", copies in another part than the first one are left out.

    Args:
        root: folder with one sub-folder per landmark.
        mode: "photos" holds out photos of landmarks that are also trained on; "landmarks" holds out whole
            landmarks, none of whose photos are trained on.
        validation, test: shares that are held out (at least two photos of a landmark, or two landmarks).
        seed: seed of the split, which depends on it, on the file names, and on which files are copies.

    Raises UserError for a folder without images, with too few landmarks or photos, and for shares that leave no
    training images.
    """
    if mode not in ("photos", "landmarks"):
        raise UserError(f"data.split must be photos or landmarks, not {mode}")
    if min(validation, test) <= 0 or validation + test >= 1:
        raise UserError(
            "data.validation_share and data.test_share must be above 0 and together below 1, "
            f"not {validation} and {test}"
        )
    photos = scan_folder(root)
    first = first_copies(photos.root, encode_names(photos.names))
    divide = _by_photo if mode == "photos" else _by_landmark
    part = divide(photos, first, validation, test, seed)
    rows = np.flatnonzero(part == 0)
    names = [photos.names[row] for row in rows]
    classes, labels = np.unique(photos.landmarks[rows], return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"{photos.root}: training needs photos of at least 2 landmarks, but has {len(classes)}")
    training = TrainingSet(FolderSource(photos.root, names), stable_ids(names), labels.astype(np.int64), classes)
    if copies := np.count_nonzero(first != np.arange(len(first))):
        dropped = np.count_nonzero(part == LEFT_OUT)
        _say(
            f"{photos.root}: {copies} exact copies of other photos, in the same part of the split"
            + (f"; {dropped} of them left out, because their landmark is in another part" if dropped else "")
        )
    counts = np.bincount(part, minlength=3)
    notes = (SEEN,) if mode == "photos" else ()
    _say(
        f"{photos.root}: {counts[0]} photos of {len(classes)} landmarks for training, {counts[1]} for "
        f"validation, {counts[2]} for the test"
    )
    return (
        training,
        replace(_benchmark(photos, np.flatnonzero(part == 1), f"validation {mode}"), notes=notes),
        replace(_benchmark(photos, np.flatnonzero(part == 2), f"test {mode}"), notes=notes),
    )


def folder_benchmark(root: str | Path, name: str | None = None) -> Benchmark:
    """Every photo of a folder as a query for the other photos of its landmark. Raises UserError like `scan_folder`."""
    photos = scan_folder(root)
    return _benchmark(photos, np.arange(len(photos.names)), name=name)


def _say(line: str) -> None:
    """Print a line once, in the first process only."""
    if main_process():
        print(line)


def _landmark_folders(root: Path) -> tuple[list[str], list[str]]:
    """The names of sub-folders, and of links that lead back to a folder inside or above `root`."""
    names = [entry.name for entry in os.scandir(root) if is_visible(entry.name) and os.path.isdir(entry)]
    home = root.resolve()
    targets = {name: (root / name).resolve() for name in names if (root / name).is_symlink()}
    links = [name for name, to in targets.items() if to.is_relative_to(home) or home.is_relative_to(to)]
    return [name for name in names if name not in links], sorted(links)


def _walk(root: Path, landmarks: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Image files below the landmarks' folders, other visible files, and folders that cannot be read."""
    found: dict[bool, list[str]] = {True: [], False: []}
    closed: list[str] = []
    for landmark in landmarks:
        for folder, inner, files in os.walk(root / landmark, onerror=lambda error: closed.append(error.filename)):
            inner[:] = filter(is_visible, inner)
            inside = Path(folder).relative_to(root).as_posix()
            for file in filter(is_visible, files):
                found[is_image(file)].append(f"{inside}/{file}")
    return found[True], found[False], sorted(closed)


def _by_photo(photos: Photos, first: NDArray[np.int64], validation: float, test: float, seed: int) -> NDArray[np.int64]:
    """0 for training, 1 for validation, 2 for test: a share of every landmark's distinct photos, copies with them."""
    keys = stable_ids(photos.names, seed)
    part = np.zeros(len(keys), np.int64)
    distinct = np.unique(first)
    for places in rows_by_landmark(photos.landmarks[distinct]).values():
        rows = distinct[places]
        held = _held_out(len(rows), validation, test)
        if sum(held) < len(rows):
            shuffled = rows[np.argsort(keys[rows])]
            part[shuffled[: held[0]]] = 1
            part[shuffled[held[0] : sum(held)]] = 2
    if not part.any():
        raise UserError(
            f"{photos.root}: no landmark has the 5 photos needed: 2 for validation, 2 for the test, 1 for training"
        )
    return part[first]


def _by_landmark(
    photos: Photos, first: NDArray[np.int64], validation: float, test: float, seed: int
) -> NDArray[np.int64]:
    """0 for training, 1 for validation, 2 for test: a share of the landmarks; and copies that are left out."""
    landmarks = np.unique(photos.landmarks)
    order = landmarks[np.argsort(stable_ids([str(landmark) for landmark in landmarks], seed))]
    held = _held_out(len(order), validation, test)
    if len(order) - sum(held) < 2:
        raise UserError(f"{photos.root} has {len(order)} landmarks: too few to hold out {sum(held)} and train on 2")
    part = np.zeros(len(photos.names), np.int64)
    part[np.isin(photos.landmarks, order[: held[0]])] = 1
    part[np.isin(photos.landmarks, order[held[0] : sum(held)])] = 2
    return np.where(part == part[first], part, LEFT_OUT)


def _held_out(count: int, validation: float, test: float) -> tuple[int, int]:
    """The numbers, out of `count`, for validation and test; a ranking needs at least two of a kind."""
    return max(2, round(count * validation)), max(2, round(count * test))


def _benchmark(photos: Photos, rows: NDArray[np.int64], part: str = "", name: str | None = None) -> Benchmark:
    """Some of the photos as a benchmark, by default named after the folder (even if given as `.`) and the part."""
    source = FolderSource(photos.root, [photos.names[row] for row in rows])
    return class_benchmark(name or f"{photos.root.resolve().name} {part}".strip(), source, photos.landmarks[rows])

"""Google Landmarks v2 as it is published, in its archives or unpacked (Weyand et al., CVPR 2020)."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, InputError, TrainingSet
from src.data.classes import class_benchmark
from src.data.gldv2_tables import id_bytes, id_numbers, long_fields
from src.data.selection import places
from src.data.sources import HexSource, file_size, hash_share
from src.data.tar_source import TarSource

# How many files are looked for before training starts; all of 1.58 million would take minutes.
PROBES = 512


HINT = (
    "`python -m src.prepare task=gldv2 root={root}` fetches it (README, Data); or try `make demo`, which needs no data"
)


Kind = Literal["auto", "folder", "tar"]


def load_gldv2(
    root: str | Path, train_csv: str = "train_clean.csv", hint: str = HINT, kind: Kind = "auto"
) -> TrainingSet:
    """The training images of `root`, unpacked or in their archives, with the labels of a csv.

    Args:
        root: the folder that holds the csv and `train/`.
        train_csv: `train_clean.csv` (landmark_id,images) or Kaggle's `train.csv` (id,landmark_id).
        hint: what the message says where there is no csv; {root} is filled in.
        kind: `folder` reads `train/a/b/c/ID.jpg`, `tar` the archives `train/*.tar`, `auto` the folder where there is
            one.

    Returns:
        Ids ascending; classes are the landmark ids in ascending order, labels their positions.

    Raises:
        InputError: no csv, another header, no rows, an id that is not 16 hex digits, a duplicate id, or
            images that are not there.
    """
    root = Path(root)
    path = root / train_csv
    if not path.is_file():
        raise InputError(f"training data not found: {path} is missing; {hint.format(root=root)}")
    if path.name.startswith("index_"):
        raise InputError(f"{path} labels the index images, whose landmark ids are others than those of training")
    ids, landmarks = read_labels(path)
    order = np.argsort(ids)
    ids, landmarks = ids[order], landmarks[order]
    repeated = np.flatnonzero(ids[1:] == ids[:-1])
    if len(repeated):
        raise InputError(f"{path}: the image id {int(ids[repeated[0]]):016x} is listed more than once")
    classes, labels = np.unique(landmarks, return_inverse=True)
    return TrainingSet(_source(root, "train", ids, kind), ids, labels.astype(np.int64), classes.astype(np.str_))


def hold_out(
    training: TrainingSet, share: float, seed: int = 0, landmarks: int = 1000, photos: int = 4
) -> tuple[TrainingSet, Benchmark]:
    """Set a share of the images aside (the paper's 80/20 split of GLDv2-clean), and rank some of them.

    The split follows from the seed and the image ids alone. A landmark keeps at least one training image.

    Args:
        training: what `load_gldv2` gave.
        share: of the images that is not trained on.
        seed: of the split.
        landmarks, photos: how many landmarks the validation benchmark has, and held-out photos of each at
            most.

    Raises:
        InputError: a share outside (0, 1), or no landmark with two held-out photos.
    """
    if not 0 < share < 1:
        raise InputError(f"data.holdout must be above 0 and below 1, not {share}")
    source = training.source
    assert isinstance(source, HexSource | TarSource)
    position = hash_share(training.ids, seed)
    held = position < share
    kept = np.bincount(training.labels[~held], minlength=len(training.classes)) > 0
    held &= kept[training.labels]
    rest = np.flatnonzero(~held)
    remaining = TrainingSet(
        source.take(rest),
        training.ids[rest],
        training.labels[rest],
        training.classes,
    )
    chosen = _validation_rows(np.flatnonzero(held), training.labels, position, landmarks, photos)
    return remaining, class_benchmark(
        f"gldv2 held-out {share:g}",
        source.take(chosen),
        training.classes[training.labels[chosen]],
    )


def _validation_rows(
    held: NDArray[np.int64],
    labels: NDArray[np.int64],
    position: NDArray[np.float64],
    landmarks: int,
    photos: int,
) -> NDArray[np.int64]:
    """Of the held-out rows, those of the first `landmarks` landmarks with two or more, `photos` each."""
    held = held[np.lexsort((position[held], labels[held]))]
    place = places(labels[held])
    counts = np.bincount(labels[held], minlength=labels.max() + 1)
    able = held[counts[labels[held]] >= 2]
    order = np.unique(labels[able])
    step = max(1, len(order) // landmarks)
    return held[np.isin(labels[held], order[::step][:landmarks]) & (place < photos)]


def read_labels(path: Path) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Image ids (uint64 of their 16 hex digits) and landmark ids of either csv, in the file's order."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file, long_fields():
            return _parse_rows(csv.reader(file), path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a csv file: {error}") from error


def _parse_rows(rows: Iterator[list[str]], path: Path) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    landmark, images, several = _columns([column.strip() for column in next(rows, [])], path)
    ids, landmarks, counts = bytearray(), array("q"), array("q")
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        try:
            names = row[images].split() if several else [row[images].strip()]
            ids += id_bytes(names)
            landmarks.append(int(row[landmark]))
            counts.append(len(names))
        except IndexError:
            raise InputError(f"{path}, row {number}: it has fewer columns than the header") from None
        except (ValueError, OverflowError) as error:
            raise InputError(f"{path}, row {number}: {error}") from error
    if not ids:
        raise InputError(f"{path} lists no images")
    return id_numbers(ids), np.repeat(np.array(landmarks), np.array(counts))


def _columns(header: list[str], path: Path) -> tuple[int, int, bool]:
    """Positions of the landmark and of its images, and whether a row lists several of them."""
    for images in ("images", "id"):
        if {"landmark_id", images} <= set(header):
            return header.index("landmark_id"), header.index(images), images == "images"
    raise InputError(f"{path}: needs the columns landmark_id,images or id,landmark_id; it has {','.join(header)!r}")


def _source(root: Path, split: str, ids: NDArray[np.uint64], kind: Kind) -> HexSource | TarSource:
    if kind not in get_args(Kind):
        raise InputError(f"data.source={kind} is none of {', '.join(get_args(Kind))}")
    unpacked = any((root / split / digit).is_dir() for digit in "0123456789abcdef")
    if kind == "tar" or (kind == "auto" and not unpacked and any((root / split).glob("*.tar"))):
        return TarSource(root, split, ids)
    source = HexSource(root, split, ids)
    _check_images(source)
    return source


def _check_images(source: HexSource) -> None:
    probes = np.unique(np.linspace(0, len(source) - 1, PROBES).astype(np.int64)).tolist()
    missing = [name for name in map(source.name, probes) if file_size(source.root / name) is None]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(probes)} probed training images are not in {source.root}, the first is "
            f"{missing[0]}: unpack all the archives the csv lists, or list only the images that are there"
        )

"""Google Landmarks v2 as it is published, in its archives or unpacked (Weyand et al., CVPR 2020)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, TrainingSet
from dolglab.data.archive_source import PackedSource
from dolglab.data.folder import class_benchmark
from dolglab.data.gldv2_tables import check_unique, read_ids, read_labels
from dolglab.data.selection import rank_within_class
from dolglab.data.sources import GLDv2Source, HexSource, file_size, hash_share
from dolglab.data.streamed_source import StreamedSource
from dolglab.data.tar_archives import TarSource
from dolglab.errors import UserError

# How many files are looked for before training starts; all of 1.58 million would take minutes.
PROBES = 512
HINT = (
    "`dolglab prepare task=gldv2 root={root}` fetches it (README, Training on GLDv2); or try `make demo`, which "
    "needs no data"
)
Kind = Literal["auto", "folder", "tar", "packed"]
OTHER_LABELS = "their landmark ids are another label space than that of the training images, and do not mix with it"
# The file that lists a split's images; those of training are in the csv that is trained on.
LISTS = {"train": None, "index": "index.csv", "test": "test.csv"}


def load_gldv2(
    root: str | Path,
    train_csv: str = "train_clean.csv",
    hint: str = HINT,
    kind: Kind = "auto",
    packed_url: str | None = None,
    cache_gb: float = 50.0,
) -> TrainingSet:
    """The training images of `root`, unpacked or in their archives, with the labels of a csv.

    Args:
        root: the folder that holds the csv and `train/`.
        train_csv: `train_clean.csv` (landmark_id,images) or Kaggle's `train.csv` (id,landmark_id).
        hint: what the message says where there is no csv; {root} is filled in.
        kind: `folder` reads `train/a/b/c/ID.jpg`, `tar` the archives `train/*.tar`, `auto` the folder where there is
            one; `packed` what `task=pack` wrote.
        packed_url, cache_gb: where packed images lie in an object store, and how much of it is kept (see
            `StreamedSource`); then `kind` means nothing.

    Returns:
        Ids ascending; classes are the landmark ids in ascending order, labels their positions.

    Raises:
        UserError: no csv, another header, no rows, an id that is not 16 hex digits, a duplicate id, or
            images that are not there.
    """
    root = Path(root)
    path = root / train_csv
    if not path.is_file():
        raise UserError(f"training data not found: {path} is missing; {hint.format(root=root)}")
    if path.name.startswith("index_"):
        raise UserError(f"{path} labels index images: {OTHER_LABELS}")
    ids, landmarks = read_labels(path)
    order = np.argsort(ids)
    ids, landmarks = ids[order], landmarks[order]
    check_unique(ids, path)
    classes, labels = np.unique(landmarks, return_inverse=True)
    try:
        if packed_url:
            source = StreamedSource(root, "train", ids, packed_url, cache_gb)
        else:
            source = image_source(root, "train", ids, kind)
    except UserError:
        if _are_index_ids(root, ids):
            raise UserError(f"{path} labels index images: {OTHER_LABELS}") from None
        raise
    return TrainingSet(source, ids, labels.astype(np.int64), classes.astype(np.str_))


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
        UserError: a share outside (0, 1), or no landmark with two held-out photos.
    """
    if not 0 < share < 1:
        raise UserError(f"data.holdout must be above 0 and below 1, not {share}")
    source = training.source
    assert isinstance(source, GLDv2Source)
    position = hash_share(training.ids, seed)
    held = position < share
    still_trained = np.bincount(training.labels[~held], minlength=len(training.classes)) > 0
    held &= still_trained[training.labels]
    rest = np.flatnonzero(~held)
    remaining = TrainingSet(source.take(rest), training.ids[rest], training.labels[rest], training.classes)
    chosen = _validation_rows(np.flatnonzero(held), training.labels, position, landmarks, photos)
    landmark_of = training.classes[training.labels[chosen]]
    return remaining, class_benchmark(f"gldv2 held-out {share:g}", source.take(chosen), landmark_of)


def _validation_rows(
    held: NDArray[np.int64], labels: NDArray[np.int64], position: NDArray[np.float64], landmarks: int, photos: int
) -> NDArray[np.int64]:
    """Of the held-out rows, those of the first `landmarks` landmarks with two or more, `photos` each."""
    held = held[np.lexsort((position[held], labels[held]))]
    rank = rank_within_class(labels[held])
    rankable = np.flatnonzero(np.bincount(labels[held]) >= 2)
    step = max(1, len(rankable) // landmarks)
    return held[np.isin(labels[held], rankable[::step][:landmarks]) & (rank < photos)]


def listed_ids(root: str | Path, split: str, train_csv: str = "train_clean.csv") -> NDArray[np.uint64]:
    """The ids of a split's images, ascending: those of `train_csv`, or of `index.csv` or `test.csv`.

    Raises UserError for a split or list there is not, another header, an id that is not 16 hex digits or comes twice.
    """
    if split not in LISTS:
        raise UserError(f"split={split} is none of {', '.join(LISTS)}")
    path = Path(root) / (LISTS[split] or train_csv)
    if not path.is_file():
        raise UserError(f"{path} is missing; {HINT.format(root=root)}")
    ids = read_labels(path)[0] if split == "train" else read_ids(path)
    ids = np.sort(ids)
    check_unique(ids, path)
    return ids


def image_source(
    root: str | Path, split: str, ids: NDArray[np.uint64], kind: Kind = "auto", probe: bool = True
) -> GLDv2Source:
    """The images of a split with these ids, in the order of the ids, unpacked, in their archives, or packed.

    Raises UserError for another kind, or images that are not there; of an unpacked tree `probe` looks for some.
    """
    root = Path(root)
    if kind not in get_args(Kind):
        raise UserError(f"data.source={kind} is none of {', '.join(get_args(Kind))}")
    if kind == "packed":
        return PackedSource(root, split, ids)
    unpacked = any((root / split / digit).is_dir() for digit in "0123456789abcdef")
    if kind == "tar" or (kind == "auto" and not unpacked and any((root / split).glob("*.tar"))):
        return TarSource(root, split, ids)
    source = HexSource(root, split, ids)
    if probe:
        _check_images(source)
    return source


def _are_index_ids(root: Path, ids: NDArray[np.uint64]) -> bool:
    """Whether most of these ids, of images that training has not, are ids of the index."""
    return (root / "index.csv").is_file() and bool(np.isin(ids, read_ids(root / "index.csv")).mean() > 0.5)


def _check_images(source: HexSource) -> None:
    probes = np.unique(np.linspace(0, len(source) - 1, PROBES).astype(np.int64)).tolist()
    missing = [name for name in map(source.name, probes) if file_size(source.root / name) is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(probes)} probed {source.split} images are not in {source.root}, the first is "
            f"{missing[0]}: unpack all the archives the csv lists, or list only the images that are there"
        )

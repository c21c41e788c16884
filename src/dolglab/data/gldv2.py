"""Google Landmarks v2 as published, unpacked or not, and the selection for training (Weyand et al., CVPR 2020)."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO, get_args

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, TrainingSet
from dolglab.data.archive_source import PackedSource, StreamedSource, TarSource
from dolglab.data.folder import class_benchmark
from dolglab.data.sources import GLDv2Source, file_size, hash_share
from dolglab.errors import UserError

# The number of files that are probed before training starts; all of 1.58 million would take minutes.
PROBES = 512
HINT = (
    "`dolglab prepare task=gldv2 root={root}` fetches it (docs/howto/data.md); or try `make demo`, which needs no data"
)
Kind = Literal["auto", "folder", "tar", "packed"]
OTHER_LABELS = (
    "their landmark ids belong to another label space than those of the training images, and cannot be mixed with them"
)
# The file that lists a split's images; training images are listed in `train_csv`.
LISTS = {"train": None, "index": "index.csv", "test": "test.csv"}
IMAGE_ID = re.compile("[0-9a-f]{16}")


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
        root: the folder with the csv and `train/`.
        train_csv: `train_clean.csv` (landmark_id,images) or Kaggle's `train.csv` (id,landmark_id).
        hint: text of the message if there is no csv; {root} is filled in.
        kind: `folder` reads `train/a/b/c/ID.jpg`, `tar` the archives `train/*.tar`, `auto` the folder if there is one;
            `packed` reads the output of `task=pack`.
        packed_url, cache_gb: address of packed images in an object store, and size of the local cache (see
            `StreamedSource`); `kind` is then ignored.

    Returns:
        Ids ascending; classes are the landmark ids in ascending order, labels their positions.

    Raises UserError for a missing csv, another header, no rows, an id that is not 16 hex digits, a duplicate id, or
    missing images.
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
        # Images that are missing in training are mostly those of the index.
        if (root / "index.csv").is_file() and np.isin(ids, read_ids(root / "index.csv")).mean() > 0.5:
            raise UserError(f"{path} labels index images: {OTHER_LABELS}") from None
        raise
    return TrainingSet(source, ids, labels.astype(np.int64), classes.astype(np.str_))


def hold_out(
    training: TrainingSet, share: float, seed: int = 0, landmarks: int = 1000, photos: int = 4
) -> tuple[TrainingSet, Benchmark]:
    """Hold out a share of the images (the paper's 80/20 split of GLDv2-clean), and make a benchmark of some of them.

    The split depends on the seed and the image ids only. A landmark keeps at least one training image.

    Args:
        training: the result of `load_gldv2`.
        share: the share of images that are held out.
        seed: seed of the split.
        landmarks, photos: number of landmarks in the validation benchmark, and most held-out photos of each.

    Raises UserError for a share outside (0, 1), or no landmark with two held-out photos.
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
    # From the first landmarks with two or more held-out photos, up to `photos` each.
    labels = training.labels
    chosen = np.flatnonzero(held)
    chosen = chosen[np.lexsort((position[chosen], labels[chosen]))]
    rankable = np.flatnonzero(np.bincount(labels[chosen]) >= 2)
    rankable = rankable[:: max(1, len(rankable) // landmarks)][:landmarks]
    chosen = chosen[np.isin(labels[chosen], rankable) & (rank_within_class(labels[chosen]) < photos)]
    landmark_of = training.classes[labels[chosen]]
    return remaining, class_benchmark(f"gldv2 held-out {share:g}", source.take(chosen), landmark_of)


def listed_ids(root: str | Path, split: str, train_csv: str = "train_clean.csv") -> NDArray[np.uint64]:
    """The ids of a split's images, ascending: those of `train_csv`, or of `index.csv` or `test.csv`.

    Raises UserError for an unknown split, a missing list, another header, and ids that are not 16 hex digits or
    repeated.
    """
    if split not in LISTS:
        raise UserError(f"split={split} is not one of {', '.join(LISTS)}")
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

    Raises UserError for an unknown kind, or missing images; in an unpacked tree only `probe` images are checked.
    """
    root = Path(root)
    if kind not in get_args(Kind):
        raise UserError(f"data.source={kind} is not one of {', '.join(get_args(Kind))}")
    if kind == "packed":
        return PackedSource(root, split, ids)
    unpacked = any((root / split / digit).is_dir() for digit in "0123456789abcdef")
    if kind == "tar" or (kind == "auto" and not unpacked and any((root / split).glob("*.tar"))):
        return TarSource(root, split, ids)
    source = GLDv2Source(root, split, ids)
    probes = np.unique(np.linspace(0, len(source) - 1, PROBES if probe else 0).astype(np.int64)).tolist()
    missing = [name for name in map(source.name, probes) if file_size(root / name) is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(probes)} probed {split} images are not in {root}, the first is {missing[0]}: "
            "unpack all archives that the csv lists, or list only images that exist"
        )
    return source


def select(
    training: TrainingSet,
    exclude_landmarks: str | Path | None = None,
    exclude_images: str | Path | Sequence[str | Path] | None = None,
    categories: Mapping[str, object] | None = None,
    category_csv: str | Path = "",
    cap: int | None = None,
    seed: int = 0,
) -> TrainingSet:
    """Leave out listed landmarks and images, landmarks of other categories, and then images beyond a cap.

    Lists have one landmark or image per line, images by their 16 hex digits; there may be several lists of images, such
    as that of a scan and your own.

    Raises UserError for lists that cannot be read, like the functions below, and if nothing is left.
    """
    rows = np.ones(len(training), np.bool_)
    if exclude_landmarks:
        rows &= ~np.isin(training.classes, np.array(_lines(exclude_landmarks), np.str_))[training.labels]
    for path in [exclude_images] if isinstance(exclude_images, str | Path) else exclude_images or ():
        rows &= ~np.isin(training.ids, parse_ids(_lines(path), path))
    if categories:
        rows &= of_categories(training, category_csv, categories)
    training = training if rows.all() else subset(training, rows)
    return training if cap is None else subset(training, capped(training, cap, seed))


def subset(training: TrainingSet, rows: NDArray[np.bool_]) -> TrainingSet:
    """The images selected by `rows`; landmarks without images are removed from the classes.

    Raises UserError if nothing is left.
    """
    if not rows.any():
        raise UserError("no training image is left after the exclusions, categories and cap")
    chosen = np.flatnonzero(rows)
    classes, labels = np.unique(training.labels[chosen], return_inverse=True)
    source = training.source
    assert isinstance(source, GLDv2Source)
    return TrainingSet(source.take(chosen), training.ids[chosen], labels.astype(np.int64), training.classes[classes])


def of_categories(training: TrainingSet, path: str | Path, wanted: Mapping[str, object]) -> NDArray[np.bool_]:
    """The images of landmarks whose row in a label csv has, in each column of `wanted`, one of the wanted values.

    Raises UserError for a missing file or column, or a value that no landmark has.
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
    """At most `cap` images of each landmark, chosen by a hash of their ids. Raises UserError for a cap below 1."""
    if cap < 1:
        raise UserError(f"data.cap must be at least 1, not {cap}")
    order = np.lexsort((hash_share(training.ids, seed), training.labels))
    rows = np.zeros(len(order), np.bool_)
    rows[order[rank_within_class(training.labels[order]) < cap]] = True
    return rows


def rank_within_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """For ascending labels, the position of each within its class, from 0.

    >>> rank_within_class(np.array([2, 2, 2, 5, 9, 9])).tolist()
    [0, 1, 2, 0, 0, 1]
    """
    return np.arange(len(labels)) - np.searchsorted(labels, labels)


def _lines(path: str | Path) -> list[str]:
    """The lines of a list, without blank lines and comments (#)."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list: {error}") from error
    return [line for line in (line.split("#")[0].strip() for line in text.splitlines()) if line]


def read_labels(path: Path) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Image ids (uint64 of their 16 hex digits) and landmark ids of either csv, in the file's order."""
    return _parse_rows(path, labelled=True)


def read_ids(path: Path) -> NDArray[np.uint64]:
    """The ids in the column `id` of `index.csv` or `test.csv`, in the file's order.

    Raises UserError for another header, no rows, or an id that is not 16 hex digits.
    """
    return _parse_rows(path, labelled=False)[0]


@contextmanager
def open_csv(path: Path) -> Iterator[TextIO]:
    """Open a CSV file. Raises UserError during reading if it is invalid."""
    # A landmark's images are one field, which may be longer than the default limit of the csv module.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a csv file: {error}") from error
    finally:
        csv.field_size_limit(limit)


def id_bytes(names: Sequence[str]) -> bytes:
    """The eight bytes of each id, most significant first. Raises ValueError for a name that is not an id.

    >>> id_numbers(id_bytes(["00000000000000ff", "0000000000000100"])).tolist()
    [255, 256]
    """
    for name in names:
        if not IMAGE_ID.fullmatch(name):
            raise ValueError(f"{name!r} is not an image id of 16 hex digits (0-9a-f)")
    return bytes.fromhex("".join(names))


def id_numbers(data: bytes | bytearray) -> NDArray[np.uint64]:
    """The output of `id_bytes` as numbers."""
    return np.frombuffer(data, ">u8").astype(np.uint64)


def parse_ids(names: Sequence[str], path: Path | str) -> NDArray[np.uint64]:
    """The ids as numbers. Raises UserError, naming their file, for a name that is not an id."""
    try:
        return id_numbers(id_bytes(names))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def check_unique(ids: NDArray[np.uint64], path: Path) -> None:
    """Raise UserError if ascending ids contain a duplicate."""
    repeated = np.flatnonzero(ids[1:] == ids[:-1])
    if len(repeated):
        raise UserError(f"{path}: the image id {int(ids[repeated[0]]):016x} is listed more than once")


def _parse_rows(path: Path, labelled: bool) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Image ids and, if `labelled`, their landmarks; a row of `images` lists several images of one landmark."""
    ids, landmarks, counts = bytearray(), array("q"), array("q")
    with open_csv(path) as file:
        rows = csv.reader(file)
        header = [column.strip() for column in next(rows, [])]
        several = labelled and "images" in header
        try:
            images = header.index("images" if several else "id")
            landmark = header.index("landmark_id") if labelled else images
        except ValueError:
            wanted = "columns landmark_id,images or id,landmark_id" if labelled else "column id"
            raise UserError(f"{path} needs the {wanted}, but has {','.join(header)!r}") from None
        for number, row in enumerate(rows, start=2):
            if not row:
                continue
            try:
                names = row[images].split() if several else [row[images].strip()]
                ids += id_bytes(names)
                if labelled:
                    landmarks.append(int(row[landmark]))
                    counts.append(len(names))
            except IndexError:
                raise UserError(f"{path}, row {number}: it has fewer columns than the header") from None
            except (ValueError, OverflowError) as error:
                raise UserError(f"{path}, row {number}: {error}") from error
    if not ids:
        raise UserError(f"{path} lists no images")
    return id_numbers(ids), np.repeat(np.array(landmarks), np.array(counts))

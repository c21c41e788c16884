"""What the public data sets consist of, and where they lie (Weyand et al., CVPR 2020; Radenovic et al., CVPR 2018)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from src.data.preparation.fetch import Mode, fetch
from src.data.preparation.tar_index import index_archives
from src.data.preparation.transfer import Remote
from src.errors import InputError

MODES = (*get_args(Mode), "index")
# Archives of each split, and the csv files that go with it, relative to the published root.
ARCHIVES = {"train": 500, "index": 100, "test": 20}
TABLES = {
    "train": (
        "metadata/train_clean.csv",
        "metadata/train.csv",
        "metadata/train_label_to_category.csv",
        "metadata/train_label_to_hierarchical.csv",
    ),
    "index": (
        "metadata/index.csv",
        "metadata/index_image_to_landmark.csv",
        "metadata/index_label_to_hierarchical.csv",
    ),
    "test": (
        "metadata/test.csv",
        "ground_truth/recognition_solution_v2.1.csv",
        "ground_truth/retrieval_solution_v2.1.csv",
    ),
}


def fetch_gldv2(
    root: str | Path,
    split: str,
    archives: object = "all",
    base_url: str = "https://s3.amazonaws.com/google-landmark/",
    mode: Mode | Literal["index"] = "run",
    parallel: int = 4,
) -> None:
    """Google Landmarks v2: the csv files of a split below `root`, its archives as `root/SPLIT/images_XXX.tar`.

    What was fetched is indexed, so that training reads it as it is; `index` does that alone.
    Raises InputError for a split or archives there are not, and as `fetch` and `index_archives`.
    """
    if mode not in MODES:
        raise InputError(f"mode={mode} is none of {', '.join(MODES)}")
    root = Path(root)
    files = gldv2_files(root, split, archives, base_url)
    # The index is made of what is there.
    if mode != "index":
        fetch(files, root, mode, parallel)
    if mode == "index" or (mode == "run" and any((root / split).glob("*.tar"))):
        index_archives(root / split, parallel)


def gldv2_files(root: Path, split: str, archives: object, base_url: str) -> list[Remote]:
    """The csv files and archives of a split. Raises InputError for a split or archives there are not."""
    if split not in ARCHIVES:
        raise InputError(f"split={split} is none of {', '.join(ARCHIVES)}")
    base = base_url.rstrip("/")
    names = [f"images_{number:03}" for number in numbers(archives, ARCHIVES[split])]
    return [
        *(Remote(f"{base}/{table}", root / Path(table).name) for table in TABLES[split]),
        *(
            Remote(f"{base}/{split}/{name}.tar", root / split / f"{name}.tar", f"{base}/md5sum/{split}/md5.{name}.txt")
            for name in names
        ),
    ]


def numbers(given: object, count: int, first: int = 0) -> list[int]:
    """The archives that `all`, `none`, a number, a span such as 0-499, or a list of these names.

    Raises InputError for anything else, and for numbers that are not among the `count` from `first`.
    """
    there = range(first, first + count)
    if given == "all":
        return list(there)
    if given is None or given == "none":
        return []
    parts = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else str(given).split(",")
    found: set[int] = set()
    for part in parts:
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", str(part))
        start, end = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if start > end or start not in there or end not in there:
            raise InputError(f"archives={part}: give all, none, numbers or spans within {there[0]}-{there[-1]}")
        found.update(range(start, end + 1))
    return sorted(found)

"""Shared by benchmarks: reading and checking lists, and making a benchmark of listed files."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, Crop, Difficulty, GroundTruth, ImageSource, IntArray, Measure
from dolglab.data.long_lists import blocks, repeated_names
from dolglab.data.sources import FolderSource, encode_names, file_sizes, require_all
from dolglab.errors import UserError, truncate_list

NOTHING = np.empty(0, np.int64)
# Published numbers of images, gallery and queries; None if unknown.
Counts = Sequence[int | None] | None
GALLERY_TIES = "equal scores are in gallery order"
UNCHECKED = "the number of images was not compared with the published one"


@dataclass(frozen=True)
class Files:
    """Listed files: the source, and the size of each in bytes, (N,)."""

    source: FolderSource
    sizes: IntArray
    # Encoded as in `FolderSource`.
    names: NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Rules:
    """The protocol of a benchmark in words: the measure, the images, ties, and what is left out."""

    measure: str
    images: str
    left_out: str
    ties: str = GALLERY_TIES

    def protocol(self) -> dict[str, str]:
        """The form of `Benchmark.protocol`."""
        return {"measure": self.measure, "images": self.images, "ties": self.ties, "left out": self.left_out}


def listed_files(root: Path, names: Sequence[str], advice: str) -> Files:
    """The files with these names below `root`.

    Raises UserError for a missing folder, duplicate names, or missing files; `advice` says what to do.
    """
    if not root.is_dir():
        raise UserError(f"folder not found: {root} ({advice})")
    encoded = encode_names(names)
    check_distinct_names(encoded, root)
    sizes = file_sizes(root, encoded)
    require_all(root, encoded, sizes, advice)
    return Files(FolderSource(root, encoded), sizes, encoded)


def check_distinct_names(names: NDArray[np.bytes_], where: object) -> None:
    """Raise UserError for duplicate names."""
    repeated = repeated_names(names)
    if repeated:
        first = truncate_list([os.fsdecode(name) for name in repeated])
        raise UserError(f"{where}: images are listed more than once: {first}")


def check_counts(name: str, root: Path, gallery: int, queries: int, counts: Counts) -> tuple[str, ...]:
    """Notes for the figures: `UNCHECKED` if `counts` is None.

    Raises UserError if the numbers of gallery images and queries differ from `counts`.
    """
    if counts is None:
        return (UNCHECKED,)
    found = (gallery, queries)
    if len(counts) != 2 or not all(count is None or isinstance(count, int) for count in counts):
        raise UserError(f"benchmark.counts must be null or two numbers, gallery and queries, not {counts}")
    if any(count not in (None, own) for count, own in zip(counts, found, strict=True)):
        wanted = " and ".join(f"{'?' if count is None else f'{count:,}'}" for count in counts)
        raise UserError(
            f"{name} has {wanted} gallery images and queries, {root} has {gallery:,} and {queries:,}: another version, "
            "or a part of it (benchmark.counts=null measures the images that exist, and notes it)"
        )
    return ()


def make_benchmark(
    name: str,
    *,
    source: ImageSource,
    num_gallery: int,
    queries: IntArray,
    positives: Sequence[IntArray],
    digest: str,
    measure: Measure,
    difficulties: Sequence[Difficulty],
    rules: Rules,
    itself: bool = False,
    boxes: NDArray[np.float64] | None = None,
    crop: Crop = "none",
    **about: Any,
) -> Benchmark:
    """A benchmark without grades of positives; with `itself`, each query is a gallery image and not its own answer.

    Raises UserError if no query has a positive.
    """
    if not any(map(len, positives)):
        raise UserError(f"{name}: no query has a positive in the gallery")
    none = (NOTHING,) * len(queries)
    truth = (
        GroundTruth(easy=tuple(positives), hard=none, junk=tuple(queries[row : row + 1] for row in range(len(queries))))
        if itself
        else GroundTruth(easy=tuple(positives), hard=none, junk=none)
    )
    return Benchmark(
        name=name,
        source=source,
        num_gallery=num_gallery,
        queries=queries,
        boxes=np.full((len(queries), 4), np.nan) if boxes is None else boxes,
        ground_truth=truth,
        crop=crop,
        digest=digest,
        measure=measure,
        difficulties=tuple(difficulties),
        protocol=rules.protocol(),
        **about,
    )


def fingerprint(files: Sequence[Files], positives: Sequence[IntArray], *more: object) -> str:
    """A short digest of names, sizes in bytes, ground truth, and everything else that affects figures."""
    digest = hashlib.sha256()
    for part in files:
        for names in blocks(part.names):
            digest.update(b"\n".join(names.tolist()))
        for sizes in blocks(part.sizes):
            digest.update(sizes.astype("<i8").tobytes())
    digest.update(np.array([len(part) for part in positives], "<i8").tobytes())
    for part in positives:
        digest.update(part.astype("<i8").tobytes())
    digest.update(json.dumps(more).encode())
    return digest.hexdigest()[:16]


def read_lines(path: Path, advice: str) -> list[str]:
    """The lines of a text file, without blank lines.

    Raises UserError if the file is missing, unreadable, not UTF-8, or empty.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"{path} cannot be read ({reason}; {advice})") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty ({advice})")
    return lines


def read_table(path: Path, columns: Collection[str], advice: str, separator: str = ",") -> list[dict[str, str]]:
    """The rows of a table with a header. Raises UserError like `read_lines`, and if a column is missing."""
    lines = read_lines(path, advice)
    rows = csv.DictReader(lines, delimiter=separator)
    missing = [column for column in columns if column not in (rows.fieldnames or ())]
    if missing:
        raise UserError(f"{path} needs the columns {', '.join(columns)}, but has {', '.join(rows.fieldnames or ())}")
    found = list(rows)
    for number, row in enumerate(found, start=2):
        if None in row or None in row.values():
            raise UserError(f"{path}, line {number}: expected {len(rows.fieldnames or ())} columns")
    return found


def read_json(path: Path, advice: str) -> Any:
    """The content of a JSON file. Raises UserError if it is missing or invalid."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not JSON, {error}"
        raise UserError(f"{path} cannot be read ({reason}; {advice})") from error


def number(value: object, what: str, kind: Literal["whole", "any"] = "any") -> float:
    """A finite number. Raises UserError, which begins with `what`, for anything else."""
    try:
        found = int(str(value)) if kind == "whole" else float(str(value))
    except ValueError:
        found = float("nan")
    if not np.isfinite(found):
        raise UserError(f"{what}: {value!r} is not a {'whole ' if kind == 'whole' else ''}number")
    return found

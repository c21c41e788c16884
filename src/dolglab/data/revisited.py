"""Revisited Oxford and Paris with their million distractors (Radenovic et al., CVPR 2018).

Ground truth is read from the published pickles without running code in them; distractors are answers to no query.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, Crop, GroundTruth, ImageSource
from dolglab.data.benchmarks.listing import Rules
from dolglab.data.folder import digest
from dolglab.data.sources import FolderSource, JoinedSource, encode_names, file_sizes, require_all
from dolglab.errors import UserError, truncate_list
from dolglab.measures import RevisitedMeasure

# The file that names the release of a folder's photographs.
RELEASE = "release.json"
CROPS: tuple[Crop, ...] = ("pil", "trunc", "none")
CUT = {
    "pil": "cropped to their boxes, edges rounded",
    "trunc": "cropped to their boxes, edges truncated",
    "none": "not cropped",
}
# The distractors' list, and their published number.
LIST, PUBLISHED = "revisitop1m.txt", 1_001_001


@dataclass(frozen=True)
class RevisitedLists:
    """The content of a `gnd_*.pkl`: names without extension, query boxes (Q, 4) in pixels, ground truth."""

    gallery: tuple[str, ...]
    queries: tuple[str, ...]
    boxes: NDArray[np.float64]
    ground_truth: GroundTruth


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain containers, numbers and strings; refuses pickles that refer to any code."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        advice = "; numpy's arrays and numbers become plain with .tolist()" if module_name.startswith("numpy") else ""
        raise UserError(
            f"it contains code ({module_name}.{global_name}), and only plain lists and numbers are read{advice}"
        )


def load_ground_truth(path: str | Path) -> RevisitedLists:
    """Read a ground-truth pickle without running any code in it.

    Queries without positives and empty lists are valid: `revisited_evaluation` leaves such queries out.

    Raises UserError for a missing file, a pickle with code (numpy arrays are code), missing keys, positions that are
    not whole numbers or outside the gallery, overlapping lists of a query, a box without pixels, or a name that is
    listed twice among gallery or queries.
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
    """The lists reduced to some gallery images and queries, with updated positions.

    `gallery` and `queries` say which are kept. A query may lose all its positives.
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
        raise ValueError(f"{key} is not a list of names")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        # Results and descriptors identify images by name: two queries in one photo need two files.
        raise ValueError(f"{key} lists names more than once: {truncate_list(repeated)}")
    return tuple(names)


def _box(given: Any) -> list[float]:
    """A box's edges; NaN if there is none."""
    box = given or [float("nan")] * 4
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(isinstance(edge, int | float) for edge in box):
        raise ValueError(f"the box {given} is not x1, y1, x2, y2")
    return list(box)


def _positions(entries: list[dict[str, Any]], key: str, size: int) -> tuple[NDArray[np.int64], ...]:
    lists: list[NDArray[np.int64]] = []
    for query, entry in enumerate(entries):
        part = np.asarray(entry[key]).reshape(-1)
        if len(part) and part.dtype.kind not in "iu":
            raise ValueError(f"query {query} lists {key} positions that are not whole numbers ({part.dtype})")
        outside = part[(part < 0) | (part >= size)]
        if len(outside):
            raise ValueError(f"query {query} lists {key} position {outside[0]}, outside the gallery of {size}")
        lists.append(part.astype(np.int64))
    return tuple(lists)


def revisited_benchmark(
    root: str | Path,
    ground_truth: str | Path | None = None,
    name: str | None = None,
    crop: Crop = "pil",
    hint: str = "benchmark.root=DIR with jpg/ and gnd_*.pkl",
    distractors: str | Path | None = None,
    subset: bool = False,
    families: str | Path | None = None,
) -> Benchmark:
    """A benchmark in the Revisited layout: the gallery, then distractors, then the queries.

    Args:
        root: folder with `jpg/NAME.jpg` and the ground truth.
        ground_truth: its file; by default the only `gnd_*.pkl` in `root`.
        name: name in results; by default the ground truth's name without `gnd_`, plus `+1M` with the distractors.
        crop: how queries are cropped to their boxes (see `crop_query`), before `max_side` and the scales.
        hint: text of the message if there is no such folder.
        distractors: a folder of images that are answers to no query (see `load_distractors`).
        subset: evaluate the available images: missing ones are removed from gallery, queries and ground truth, and the
            benchmark's notes count the rest. A query that has lost all positives has no AP and is in no mean.
        families: an optional JSON file with the set of look-alike landmarks of each image.

    Raises UserError for a missing folder or file, missing images, queries without any positive, or an unknown crop
    rule.
    """
    root = Path(root)
    if crop not in CROPS:
        raise UserError(f"crop must be one of {', '.join(CROPS)}, not {crop}")
    if not isinstance(subset, bool):
        raise UserError(f"subset must be true or false, not {subset}")
    if not root.is_dir():
        raise UserError(f"benchmark folder not found: {root} ({hint})")
    files = [Path(ground_truth)] if ground_truth else sorted(root.glob("gnd_*.pkl"))
    if len(files) != 1:
        what = f"{len(files)} files" if files else "no"
        raise UserError(f"{what} gnd_*.pkl in {root}: choose one with benchmark.ground_truth=FILE")
    file = files[0]
    listed = load_ground_truth(file)
    lists, sizes = _on_disk(root, listed, subset)
    if not any(len(part) for part in (*lists.ground_truth.easy, *lists.ground_truth.hard)):
        there = ", ".join(f"{count:,} of {total:,} {what}" for count, total, what in _counts(listed, lists, None))
        raise UserError(f"no query of {file.name} has a positive: {root} has {there}")
    others = load_distractors(distractors, subset) if distractors else None
    names, gallery = _photos(lists), len(lists.gallery)
    benchmark = Benchmark(
        name=name or file.stem.removeprefix("gnd_") + (others.suffix if others else ""),
        source=FolderSource(root, names),
        num_gallery=gallery,
        queries=np.arange(gallery, len(names)),
        boxes=lists.boxes,
        ground_truth=lists.ground_truth,
        crop=crop,
        digest=digest(names, sizes, lists.ground_truth),
        measure=RevisitedMeasure(),
        release=_release(root / RELEASE),
        notes=_notes(listed, lists, others),
        protocol=Rules(
            "mAP and mP@k by trapezoids; positives that are not found have precision 0",
            f"not cropped, at their published size unless max_side limits it; queries {CUT[crop]}",
            "junk, which has no rank; queries without a positive at a difficulty",
        ).protocol(),
    )
    if others:
        benchmark = with_distractors(benchmark, others)
    if families and Path(families).exists():
        benchmark = replace(benchmark, families=_families(Path(families), benchmark.source))
    return benchmark


def _on_disk(root: Path, listed: RevisitedLists, subset: bool) -> tuple[RevisitedLists, list[int]]:
    """The lists, reduced to available images if `subset`, and the sizes of their images in bytes."""
    names = encode_names(_photos(listed))
    sizes = file_sizes(root, names)
    if not subset:
        require_all(root, names, sizes, "subset=true evaluates the images that exist")
    there = sizes >= 0
    gallery = len(listed.gallery)
    return subset_lists(listed, there[:gallery], there[gallery:]), sizes[there].tolist()


def _photos(lists: RevisitedLists) -> list[str]:
    return [f"jpg/{image}.jpg" for image in (*lists.gallery, *lists.queries)]


def _counts(listed: RevisitedLists, lists: RevisitedLists, others: Distractors | None) -> list[tuple[int, int, str]]:
    """The numbers of available and of listed images."""
    return [
        (len(lists.gallery), len(listed.gallery), "gallery images"),
        *([(len(others.source), others.listed, "distractors")] if others else []),
        (len(lists.queries), len(listed.queries), "queries"),
    ]


def _notes(listed: RevisitedLists, lists: RevisitedLists, others: Distractors | None) -> tuple[str, ...]:
    """How the figures differ from those of the published benchmark."""
    notes = []
    counts = _counts(listed, lists, others)
    if any(count < total for count, total, _ in counts):
        notes.append("subset: " + ", ".join(f"{count:,} of {total:,} {what}" for count, total, what in counts))
    if others and not others.published:
        notes.append(f"a list of {others.listed:,} distractors, not the published one")
    # Such queries find their own photo first, because it is not ignored.
    place, junk = {name: row for row, name in enumerate(lists.gallery)}, lists.ground_truth.junk
    found = sum(name in place and place[name] not in junk[query] for query, name in enumerate(lists.queries))
    if found:
        notes.append(f"{found:,} of {len(lists.queries):,} queries are in the gallery, not marked as their own junk")
    return tuple(notes)


def _families(path: Path, source: ImageSource) -> NDArray[np.str_]:
    """Each image's family, by the last part of its name; "" for images that the file does not name."""
    try:
        known = {name: family for split in json.loads(path.read_text()).values() for name, family in split.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} does not name families of look-alikes: benchmark.families=null does not need it"
        ) from error
    return np.array([known.get(Path(source.name(position)).stem, "") for position in range(len(source))], np.str_)


def _release(path: Path) -> str | None:
    """The release of the photographs, as recorded by `prepare`; None if they have another origin."""
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_text())["release"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not name a release: delete it if the release is unknown") from error


@dataclass(frozen=True)
class Distractors:
    """The existing distractors, the number of listed ones, and a fingerprint of names and sizes in bytes."""

    source: FolderSource
    listed: int
    digest: str

    @property
    def published(self) -> bool:
        """Whether the list has the published number of images."""
        return self.listed == PUBLISHED

    @property
    def suffix(self) -> str:
        """The suffix of the name of a benchmark that has these distractors."""
        return "+1M" if self.published else f"+{self.listed}"


def load_distractors(root: str | Path, subset: bool = False) -> Distractors:
    """The images `root/jpg/NAME` listed in `root/revisitop1m.txt`, one NAME per line, with folder and extension.

    Their names in results are `ROOT/jpg/NAME`, which differ from those of all gallery images.

    Args:
        root: the folder made by `dolglab prepare task=revisitop1m`.
        subset: leave out missing images.

    Raises UserError for a missing or empty list, repeated names, and missing images.
    """
    root = Path(root).absolute()
    fetch = f"dolglab prepare task=revisitop1m root={root} downloads them"
    names = read_list(root / LIST, fetch)
    sizes = file_sizes(root / "jpg", names)
    if not subset:
        require_all(root / "jpg", names, sizes, f"{fetch}; subset=true evaluates the images that exist")
    there = sizes >= 0
    kept = names[there]
    fingerprint = hashlib.sha256(b"\n".join(kept.tolist()))
    fingerprint.update(sizes[there].astype("<i8").tobytes())
    prefix = os.fsencode(f"{root.name}/jpg/")
    return Distractors(FolderSource(root.parent, np.strings.add(prefix, kept)), len(names), fingerprint.hexdigest())


def with_distractors(benchmark: Benchmark, distractors: Distractors) -> Benchmark:
    """The benchmark with additional negatives after its gallery; its queries must follow the gallery."""
    count, gallery = len(distractors.source), benchmark.num_gallery
    assert isinstance(benchmark.source, FolderSource)
    rows = np.arange(len(benchmark.source))
    before, behind = benchmark.source.take(rows[:gallery]), benchmark.source.take(rows[gallery:])
    return replace(
        benchmark,
        source=JoinedSource(before, distractors.source, behind),
        num_gallery=gallery + count,
        queries=benchmark.queries + count,
        digest=hashlib.sha256(f"{benchmark.digest} {distractors.digest}".encode()).hexdigest()[:16],
    )


def read_list(path: Path, hint: str) -> NDArray[np.bytes_]:
    """The names in a list, one per line, without blank lines: an array of fixed width, since there are a million.

    Raises UserError for a missing or empty list, and for repeated names.
    """
    try:
        lines = [line.strip() for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise UserError(f"the list of distractors cannot be read: {path} ({error.strerror}; {hint})") from error
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"{path} lists no distractors ({hint})")
    if len(set(lines)) < len(lines):
        twice = [os.fsdecode(name) for name, count in Counter(lines).items() if count > 1]
        raise UserError(f"{path} lists names more than once: {truncate_list(twice)}")
    return np.array(lines, dtype=np.bytes_)

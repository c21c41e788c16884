"""The million distractors of Revisited Oxford and Paris, which answer no query (Radenovic et al., CVPR 2018)."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, Crop, ImageSource
from dolglab.data.folder import digest
from dolglab.data.ground_truth import RevisitedLists, load_ground_truth, queries_in_gallery, subset_lists
from dolglab.data.sources import FolderSource, JoinedSource, encode_names, file_sizes, require_all
from dolglab.errors import UserError, truncate_list
from dolglab.measures import RevisitedMeasure

# Which release of the photographs a folder holds.
RELEASE = "release.json"
CROPS: tuple[Crop, ...] = ("pil", "trunc", "none")


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
    """A benchmark in the Revisited layout: the gallery, distractors behind it, then the queries.

    Args:
        root: folder with `jpg/NAME.jpg` and the ground truth.
        ground_truth: its file; by default the one `gnd_*.pkl` in `root`.
        name: what results call it; by default the ground truth's name without `gnd_`, then `+1M` with the distractors.
        crop: how queries are cut to their boxes (see `crop_query`), which comes before `max_side` and the scales.
        hint: what the message says where there is no such folder.
        distractors: a folder of images that answer no query (see `load_distractors`).
        subset: evaluate the images that are there: the others leave gallery, queries and ground truth, and the
            benchmark's notes count what is left. A query without positives left has no AP and is in no mean.
        families: a JSON file, where there is one, that says of which set of look-alike landmarks each image's is.

    Raises:
        UserError: a missing folder or file, images that are not there, queries of which none has a positive, or a crop
            rule that does not exist.
    """
    root = Path(root)
    if crop not in CROPS:
        raise UserError(f"crop must be one of {', '.join(CROPS)}, not {crop}")
    if not isinstance(subset, bool):
        raise UserError(f"subset must be true or false, not {subset}")
    if not root.is_dir():
        raise UserError(f"benchmark folder not found: {root} ({hint})")
    file = Path(ground_truth) if ground_truth else _only_ground_truth(root)
    listed = load_ground_truth(file)
    lists, sizes = _on_disk(root, listed, subset)
    if not any(len(part) for part in (*lists.ground_truth.easy, *lists.ground_truth.hard)):
        there = ", ".join(f"{count:,} of {total:,} {what}" for count, total, what in _counts(listed, lists, None))
        raise UserError(f"nothing can be found: no query of {file.name} has a positive ({there} are in {root})")
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
    )
    whole = with_distractors(benchmark, others) if others else benchmark
    return (
        replace(whole, families=_families(Path(families), whole.source))
        if families and Path(families).exists()
        else whole
    )


def _on_disk(root: Path, listed: RevisitedLists, subset: bool) -> tuple[RevisitedLists, list[int]]:
    """The lists, reduced to what is there if `subset`, and the bytes of their images."""
    names = encode_names(_photos(listed))
    sizes = file_sizes(root, names)
    if not subset:
        require_all(root, names, sizes, "subset=true evaluates what is there")
    there = sizes >= 0
    gallery = len(listed.gallery)
    return subset_lists(listed, there[:gallery], there[gallery:]), sizes[there].tolist()


def _photos(lists: RevisitedLists) -> list[str]:
    return [f"jpg/{image}.jpg" for image in (*lists.gallery, *lists.queries)]


def _counts(listed: RevisitedLists, lists: RevisitedLists, others: Distractors | None) -> list[tuple[int, int, str]]:
    """How many images there are, of how many that are listed."""
    return [
        (len(lists.gallery), len(listed.gallery), "gallery images"),
        *([(len(others.source), others.listed, "distractors")] if others else []),
        (len(lists.queries), len(listed.queries), "queries"),
    ]


def _notes(listed: RevisitedLists, lists: RevisitedLists, others: Distractors | None) -> tuple[str, ...]:
    """What sets the figures apart from those of the benchmark as published."""
    notes = []
    counts = _counts(listed, lists, others)
    if any(count < total for count, total, _ in counts):
        notes.append("subset: " + ", ".join(f"{count:,} of {total:,} {what}" for count, total, what in counts))
    if others and not others.published:
        notes.append(f"a list of {others.listed:,} distractors, not the published one")
    if found := queries_in_gallery(lists):
        notes.append(f"{len(found):,} of {len(lists.queries):,} queries are in the gallery and no junk to themselves")
    return tuple(notes)


def _families(path: Path, source: ImageSource) -> NDArray[np.str_]:
    """Each image's family, by the last part of its name; "" where the file does not name it."""
    try:
        known = {name: family for split in json.loads(path.read_text()).values() for name, family in split.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} does not name families of look-alikes: benchmark.families=null goes without"
        ) from error
    return np.array([known.get(Path(source.name(position)).stem, "") for position in range(len(source))], np.str_)


def _release(path: Path) -> str | None:
    """What preparation noted of the photographs' origin; None where they came another way."""
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_text())["release"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not say which release this is: delete it if you do not know") from error


def _only_ground_truth(root: Path) -> Path:
    found = sorted(root.glob("gnd_*.pkl"))
    if len(found) != 1:
        what = "no gnd_*.pkl" if not found else f"{len(found)} files gnd_*.pkl"
        raise UserError(f"{what} in {root}: name one with benchmark.ground_truth=FILE")
    return found[0]


LIST = "revisitop1m.txt"
PUBLISHED = 1_001_001


@dataclass(frozen=True)
class Distractors:
    """The distractors that are there, how many were listed, and a fingerprint of names and sizes in bytes."""

    source: FolderSource
    listed: int
    digest: str

    @property
    def published(self) -> bool:
        """Whether as many are listed as were published."""
        return self.listed == PUBLISHED

    @property
    def suffix(self) -> str:
        """What a benchmark's name ends in with them."""
        return "+1M" if self.published else f"+{self.listed}"


def load_distractors(root: str | Path, subset: bool = False) -> Distractors:
    """The images `root/jpg/NAME` that `root/revisitop1m.txt` names, one NAME a line, with folder and extension.

    Results call them `ROOT/jpg/NAME`, which no image of a gallery is called.

    Args:
        root: as `dolglab prepare task=revisitop1m` makes it.
        subset: leave out those that are not there.

    Raises:
        UserError: no list, an empty one, a name that comes twice, images that are not there.
    """
    root = Path(root).absolute()
    fetch = f"dolglab prepare task=revisitop1m root={root} fetches them"
    names = read_list(root / LIST, fetch)
    sizes = file_sizes(root / "jpg", names)
    if not subset:
        require_all(root / "jpg", names, sizes, f"{fetch}; subset=true evaluates what is there")
    there = sizes >= 0
    kept = names[there]
    fingerprint = hashlib.sha256(b"\n".join(kept.tolist()))
    fingerprint.update(sizes[there].astype("<i8").tobytes())
    prefix = os.fsencode(f"{root.name}/jpg/")
    return Distractors(FolderSource(root.parent, np.strings.add(prefix, kept)), len(names), fingerprint.hexdigest())


def with_distractors(benchmark: Benchmark, distractors: Distractors) -> Benchmark:
    """The benchmark with further negatives between its gallery and its queries, which lie behind the gallery."""
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
    """The names in a list, one a line, blank lines aside; in one array of fixed width, since there are a million.

    Raises UserError without a list, without names, or for names that come twice.
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

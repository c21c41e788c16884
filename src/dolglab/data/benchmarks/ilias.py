"""ILIAS (Kordopatis-Zilos et al., CVPR 2025): 1,000 objects, with no, 5 or 100 million distractors from YFCC100M.

The measure is its own mAP@1000. Its text queries need a network for text, and are not evaluated.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal, TextIO, get_args

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, BoolArray, Difficulty, Figures, GroundTruth, Ranked
from dolglab.data.benchmarks.listing import (
    NOTHING,
    Counts,
    Files,
    Rules,
    check_counts,
    check_distinct_names,
    fingerprint,
    listed_files,
    make_benchmark,
    number,
    read_json,
    read_lines,
)
from dolglab.data.long_lists import blocks, put_together
from dolglab.data.sources import FolderSource, JoinedSource, OrientedSource, encode_names, file_sizes, require_all
from dolglab.errors import UserError, truncate_list
from dolglab.measures import FirstAnswersMeasure, mean_scores

Variant = Literal["core", "mini", "full"]
# Limits of the official groups of positives: the object's share of the image, and the number of other things in it.
SCALE = (0.0, 0.06880213760855043, 0.13526567164179104, 0.2729876723163842, float("inf"))
CLUTTER = (0.0, 18.0, 33.0, 53.0, float("inf"))
DEPTH = 1000
# Lines read at a time.
BLOCK = 100_000
MINI = "mini_ilias_yfcc100m_ids.txt"
FETCH = "dolglab prepare task=ilias downloads it"


def ilias_benchmark(
    root: str | Path,
    variant: Variant = "mini",
    groups: bool = False,
    subset: bool = False,
    counts: Counts = None,
    name: str | None = None,
) -> Benchmark:
    """The image queries of ILIAS; the gallery has all positives and the distractors of the variant.

    Args:
        root: folder with `image_ids/`, `ilias_core/` and `yfcc100m/SHARD/KEY.jpg`; with `groups` also `taxonomy.json`.
        variant: `core` has no distractors, `mini` those of the published list of 5 million, `full` all.
        groups: also compute figures by category, scale and clutter, as in the official report.
        subset: leave out missing distractors, and note it.
        counts: numbers of gallery images and queries of the variant.
        name: the name in results.

    Raises UserError for a missing or invalid list, images that are missing or listed twice, numbers other than
    `counts`, and an unknown variant.
    """
    if variant not in get_args(Variant):
        raise UserError(f"benchmark.variant must be {', '.join(get_args(Variant))}, not {variant}")
    root, name = Path(root), name or f"ilias_{variant}"
    lists = root / "image_ids"
    queries = [line.split(",")[0] for line in read_lines(lists / "image_query_ids.txt", FETCH)]
    positives, scale, clutter = _positives(lists / "positive_ids.txt")
    images = listed_files(root / "ilias_core", positives, FETCH)
    asked = listed_files(root / "ilias_core", queries, FETCH)
    distractors, listed = _distractors(root, variant, subset)
    gallery = len(images) + len(distractors)
    notes = list(check_counts(name, root, len(images) + listed, len(asked), counts))
    if len(distractors) < listed:
        notes.append(f"subset: {len(distractors):,} of {listed:,} distractors")
    if variant == "core":
        notes.append("without distractors, which make ILIAS hard")
    members: dict[str, list[int]] = {}
    for place, image in enumerate(positives):
        members.setdefault(instance_of(image), []).append(place)
    without = [query for query in queries if instance_of(query) not in members]
    if without:
        raise UserError(f"{lists}: queries of objects without a positive: {truncate_list(without)}")
    instances = np.array([instance_of(query) for query in queries], np.str_)
    most = max(map(len, members.values()))
    measure = ILIASMeasure(instances, scale, clutter, most, _categories(root, instances) if groups else None)
    truth = [np.array(members[instance], np.int64) for instance in instances.tolist()]
    return make_benchmark(
        name,
        # Core images are turned by their EXIF; those of YFCC100M are used as stored, as in the official loader.
        source=JoinedSource(images.source, OrientedSource(distractors.source, {}), asked.source),
        num_gallery=gallery,
        queries=np.arange(gallery, gallery + len(asked)),
        positives=truth,
        digest=fingerprint([images, distractors, asked], truth, variant),
        measure=measure,
        difficulties=measure.difficulties,
        orientation="exif",
        notes=tuple(notes),
        rules=Rules(
            "mAP@1000 over image queries, precision at each hit, divided by min(1000, positives)",
            "not cropped; turned by EXIF, except distractors; the method chooses the size (official: a longer side of "
            "384 to 768, depending on the model, also enlarged)",
            "text queries; queries that could not be read",
            "equal scores are one step, as in scikit-learn's average precision; descriptors in float32 (official: 16)",
        ),
    )


def instance_of(name: str) -> str:
    """The object that an image shows: the first folder of its id.

    >>> instance_of("bold_bimp_000/pos/P000_07.jpg")
    'bold_bimp_000'
    """
    return name.split("/")[0]


def distractor_file(key: str) -> str:
    """The path of a distractor below `yfcc100m`.

    >>> distractor_file("yfcc100m_0000.tar/00a06beb2c")
    'yfcc100m_0000/00a06beb2c.jpg'

    Raises ValueError for an invalid id.
    """
    shard, _, photo = key.partition(".tar/")
    if not shard or not photo:
        raise ValueError(f"{key!r} is not SHARD.tar/KEY")
    return f"{shard}/{photo}.jpg"


def distractor_names(root: Path, variant: Variant) -> NDArray[np.bytes_]:
    """The files of a variant's distractors below `yfcc100m`, in the official order, read a part at a time.

    Raises UserError for lists that are missing, damaged or of another form.
    """
    if variant == "core":
        return np.empty(0, "S1")
    path = root / "image_ids" / "distractor_ids.txt.gz"
    wanted = set(read_lines(path.with_name(MINI), FETCH)) if variant == "mini" else None

    def parts(file: TextIO) -> Iterator[NDArray[np.bytes_]]:
        while block := [line.strip() for line in islice(file, BLOCK)]:
            chosen = [key for key in block if wanted is None or key.partition(".tar/")[2] in wanted]
            yield encode_names([distractor_file(key) for key in chosen])

    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            names = put_together(parts(file), "S1")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"{path} cannot be read ({reason}; {FETCH})") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if wanted is not None and len(names) != len(wanted):
        raise UserError(f"{path} has {len(names):,} of the {len(wanted):,} images in {MINI}: the versions differ")
    return names


def _positives(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Ids of the positives, and scale and clutter of each."""
    rows = [line.split(",") for line in read_lines(path, FETCH)]
    wrong = next((",".join(row) for row in rows if len(row) != 3), None)
    if wrong is not None:
        raise UserError(f"{path}: {wrong!r} is not id,scale,clutter: the list has another version")
    values = np.array([[number(value, f"{path}, {row[0]}") for value in row[1:]] for row in rows])
    return [row[0] for row in rows], values[:, 0], values[:, 1]


def _distractors(root: Path, variant: Variant, subset: bool) -> tuple[Files, int]:
    """The distractors that exist, and the number of listed ones."""
    names = distractor_names(root, variant)
    check_distinct_names(names, root / "image_ids")
    sizes = file_sizes(root / "yfcc100m", names)
    if not subset:
        require_all(root / "yfcc100m", names, sizes, f"{FETCH}; subset=true evaluates the images that exist")
    listed, there = len(names), sizes >= 0
    if not there.all():
        kept = blocks(there)
        names = put_together((block[own] for block, own in zip(blocks(names), kept, strict=True)), names.dtype)
        sizes = sizes[there]
    return Files(FolderSource(root / "yfcc100m", names), sizes, names), listed


def _categories(root: Path, instances: NDArray[np.str_]) -> NDArray[np.str_]:
    """(Q, 2) category and subcategory of each query."""
    known = read_taxonomy(root / "taxonomy.json")
    missing = sorted({instance for instance in instances.tolist() if instance not in known})
    if missing:
        raise UserError(f"{root / 'taxonomy.json'} does not have {truncate_list(missing)}: it has another version")
    return np.array([known[instance] for instance in instances.tolist()], np.str_)


def read_taxonomy(path: Path) -> dict[str, tuple[str, str]]:
    """Category and subcategory of each object. Raises UserError for an invalid file."""
    advice = "misc/taxonomy.json of github.com/ilias-vrg/ilias; benchmark.groups=false does not need it"
    try:
        return {
            instance: (category, f"{category}-{name}")
            for category, names in read_json(path, advice).items()
            for name, kinds in names.items()
            for listed in kinds.values()
            for instance in listed
        }
    except (AttributeError, TypeError) as error:
        raise UserError(f"{path} is not a taxonomy of ILIAS ({advice})") from error


def average_precision_tied(hits: BoolArray, scores: NDArray[np.floating], positives: int, k: int = DEPTH) -> float:
    """AP@k of a query: the sum of the precision at each hit over min(k, positives); equal scores are one step.

    Args:
        hits: (n,) whether each answer is a positive.
        scores: (n,) their scores, in descending order.
        positives: number of positives, found or not.
        k: number of first answers that count.

    >>> average_precision_tied(np.array([False, False, False, True]), np.full(4, 0.5), 1)
    0.25
    """
    hits, scores = hits[:k], scores[:k]
    # The last answer of each run of equal scores.
    ends = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1) if len(scores) else NOTHING
    found = np.cumsum(hits)[ends]
    return float((np.diff(found, prepend=0) * found / (ends + 1)).sum() / min(k, positives))


def instance_means(ap: NDArray[np.float64], instances: NDArray[np.str_]) -> NDArray[np.float64]:
    """The mean AP of each object, at its first query, with NaN at its other queries, (Q,): one value per object."""
    means = np.full(len(ap), np.nan)
    answered = np.flatnonzero(np.isfinite(ap))
    _, first, place = np.unique(instances[answered], return_index=True, return_inverse=True)
    if len(answered):
        means[answered[first]] = np.bincount(place, ap[answered]) / np.bincount(place)
    return means


class ILIASMeasure(FirstAnswersMeasure):
    """mAP@1000, and optionally the official report by category, scale and clutter.

    Args:
        instances: (Q,) the object of each query.
        scale, clutter: (P,) of each positive; positives are the first images of the gallery.
        most: the largest number of positives of an object.
        categories: (Q, 2) category and subcategory of each query; None for mAP only.
        k: number of first answers that count.
    """

    def __init__(
        self,
        instances: NDArray[np.str_],
        scale: NDArray[np.float64],
        clutter: NDArray[np.float64],
        most: int,
        categories: NDArray[np.str_] | None = None,
        k: int = DEPTH,
    ) -> None:
        self.instances, self.scale, self.clutter, self.categories = instances, scale, clutter, categories
        self.k, self.most = int(k), int(most)
        self.name = f"mAP@{self.k}"
        # Positives of other groups are removed before the list is cut.
        self.depth = self.k if categories is None else self.k + self.most
        self._kept: dict[Difficulty, BoolArray] = {}
        if categories is not None:
            for title, values, bounds in (("scale", scale, SCALE), ("clutter", clutter, CLUTTER)):
                for low, high in pairwise(bounds):
                    self._kept[f"{title} {low:.4g}-{high:.4g}"] = (values >= low) & (values < high)

    @property
    def difficulties(self) -> tuple[Difficulty, ...]:
        """All, then categories, subcategories, and groups by scale and clutter."""
        named = (
            () if self.categories is None else [*np.unique(self.categories[:, 0]), *np.unique(self.categories[:, 1])]
        )
        return ("all", *map(str, named), *self._kept)

    def figures(self, truth: GroundTruth, rankings: Mapping[Difficulty, Ranked]) -> Figures:
        """The mean over answered queries; for a category, the mean over its objects of their means over queries."""
        ranked = next(iter(rankings.values()))
        ap = self.average_precisions(truth, ranked)
        values = {"all": ap}
        if self.categories is not None:
            for column in self.categories.T:
                for category in np.unique(column):
                    values[str(category)] = instance_means(np.where(column == category, ap, np.nan), self.instances)
        values |= {group: self.average_precisions(truth, ranked, kept) for group, kept in self._kept.items()}
        return Figures({difficulty: mean_scores(own) for difficulty, own in values.items()})

    def settings(self) -> dict[str, object]:
        """The arguments of the constructor."""
        grouped = {} if self.categories is None else {"categories": self.categories}
        groups = {"scale": self.scale, "clutter": self.clutter, "most": self.most, **grouped}
        return {"instances": self.instances, "k": self.k, **groups}

    def average_precisions(
        self, truth: GroundTruth, ranked: Ranked, kept: BoolArray | None = None
    ) -> NDArray[np.float64]:
        """(Q,) AP of each query; NaN if it has no answer, or no positive in `kept`, (P,)."""
        ap = np.full(len(truth), np.nan)
        for query, (head, scores, positives) in enumerate(zip(ranked.top_k, ranked.scores, truth.easy, strict=True)):
            wanted = positives if kept is None else positives[kept[positives]]
            there = (head >= 0) & ~(np.isin(head, positives) & ~np.isin(head, wanted))
            if len(wanted) and (head >= 0).any():
                hits = np.isin(head[there], wanted)
                ap[query] = average_precision_tied(hits, scores[there], len(wanted), self.k)
        return ap

"""Visual place recognition: Pittsburgh, MSLS, Nordland, Tokyo 24/7; recall of images within 25 m or a few frames.

Layouts and rules are those of VPR-methods-evaluation and mapillary_sls. Different data sets share a name, so the
variant is part of the name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, BoolArray, Difficulty, Figures, GroundTruth, IntArray, Ranked
from dolglab.data.benchmarks.listing import (
    Counts,
    Rules,
    check_counts,
    fingerprint,
    listed_files,
    make_benchmark,
    number,
    read_lines,
    read_table,
)
from dolglab.data.sources import JoinedSource, is_image, is_visible
from dolglab.errors import UserError
from dolglab.measures import FirstAnswersMeasure, mean_scores

RADIUS = 25.0
KAPPAS = (1, 5, 10, 20)
# Tolerance for rounding in differences of coordinates, which have centimetres.
ROUNDING = 1e-6
SIDES = ("database", "queries")
# Columns of a table of positions: metres of UTM on the datum WGS84, as in names of images.
CSV_COLUMNS = ("image", "utm_east", "utm_north")
MSLS_CITIES = ("cph", "sf")
HINT = "docs/benchmarks.md describes what to download, and where to put it"
RECALL = "share of all queries with an image within {near} among the first k"
SIZES = "not cropped; the method chooses the size (224 to 640 pixels are usual)"
ORDER = "equal scores are in the order of sorted names; inner products of unit descriptors, the same order as by L2"
FAILURES = "nothing: a query without a near image, or that could not be read, counts as a failure"


@dataclass(frozen=True)
class Places:
    """Images below a root and their positions: names, and (N, 2) metres east and north."""

    names: list[str]
    metres: NDArray[np.float64]

    def take(self, rows: IntArray) -> Places:
        """The images at these rows, in that order."""
        return Places([self.names[row] for row in rows.tolist()], self.metres[rows])


def places_benchmark(
    root: str | Path,
    name: str,
    split: str = "images/test",
    positions: bool = False,
    radius: float = RADIUS,
    counts: Counts = None,
) -> Benchmark:
    """Database and queries of a set of places; positions are in names, `@EAST@NORTH@...`, or in a table.

    Args:
        root: the set's folder.
        name: the name in results, including the variant.
        split: the folder below it with `database/` and `queries/`; a list `database_images_paths.txt` beside such a
            folder replaces its content.
        positions: read `database.csv` and `queries.csv` beside the folders instead of names; columns `CSV_COLUMNS`.
        radius: largest distance of a positive in metres, inclusive.
        counts: numbers of images of the variant.

    Raises UserError for a missing folder, images that are missing or listed twice, names without a position, a table
    without the columns, and numbers other than `counts`.
    """
    folder = Path(root) / split
    if isinstance(radius, bool) or not radius > 0:
        raise UserError(f"benchmark.radius must be metres above 0, not {radius}")
    read = read_positions if positions else read_names
    database, queries = (read(folder, side) for side in SIDES)
    return _benchmark(
        name, folder, database, queries, radius, PlaceMeasure(), counts, RECALL.format(near=f"{radius:g} m"), FAILURES
    )


def nordland_benchmark(root: str | Path, name: str, every: int, tolerance: int, counts: Counts = None) -> Benchmark:
    """Two seasons of a railway journey: frames `root/ref` and `root/query`, sorted by the numbers in names.

    Args:
        root: the folder.
        name: the name in results, including the variant.
        every: query i shows database frame i * every.
        tolerance: largest distance of a positive in frames.
        counts: numbers of images of the variant.

    Raises UserError like `places_benchmark`, and for more queries than frames.
    """
    root = Path(root)
    for key, value, least in (("every", every, 1), ("tolerance", tolerance, 0)):
        if not isinstance(value, int) or value < least:
            raise UserError(f"benchmark.{key} must be a whole number from {least}, not {value}")
    sides = []
    for side, step in (("ref", 1), ("query", every)):
        names = sorted(_images(root, side), key=_by_numbers)
        frames = np.arange(len(names), dtype=np.float64) * step
        sides.append(Places(names, np.stack([np.zeros(len(frames)), frames], axis=1)))
    database, queries = sides
    if len(queries.names) and queries.metres[-1, 1] >= len(database.names):
        raise UserError(
            f"{root}: {len(queries.names):,} queries, {every} frames apart, do not fit {len(database.names):,} "
            "database frames: another variant"
        )
    near = f"{tolerance} frames of its own"
    return _benchmark(
        name, root, database, queries, tolerance, PlaceMeasure(), counts, RECALL.format(near=near), FAILURES
    )


def _by_numbers(name: str) -> tuple[list[int], str]:
    """A sort key by the numbers in a name, padded or not."""
    return [int(part) for part in re.findall(r"\d+", name)], name


def msls_benchmark(
    root: str | Path, name: str, cities: Sequence[str] = MSLS_CITIES, radius: float = RADIUS, counts: Counts = None
) -> Benchmark:
    """Mapillary Street-Level Sequences as published: `root/train_val/CITY/{database,query}` with their tables.

    Images of the subtask `all` that are not panoramas. Queries without a positive are left out, as in the official
    evaluator. All cities form one gallery.

    Args:
        root: the folder of MSLS.
        name: the name in results, including the variant.
        cities: the cities to use.
        radius, counts: see `places_benchmark`.

    Raises UserError like `places_benchmark`.
    """
    root = Path(root)
    parts = {side: [_msls_part(root, f"train_val/{city}/{side}") for city in cities] for side in ("database", "query")}
    database, queries = (
        Places([name for part in own for name in part.names], np.concatenate([part.metres for part in own]))
        for own in parts.values()
    )
    answered = [row for row, near in enumerate(within(queries.metres, database.metres, radius)) if len(near)]
    return _benchmark(
        name,
        root,
        database,
        queries.take(np.array(answered, np.int64)),
        radius,
        PlaceMeasure(maps=True),
        counts,
        f"{RECALL.format(near=f'{radius:g} m')}, and mAP@k with min(k, positives), as in mapillary_sls",
        "panoramas, images without a subtask, queries without a near image",
    )


def _msls_part(root: Path, folder: str) -> Places:
    """The images of one city's database or queries."""
    home = root / folder
    rows = read_table(home / "postprocessed.csv", ("key", "easting", "northing"), HINT)
    subtasks, raw = (
        read_table(home / file, ("key", column), HINT)
        for file, column in (("subtask_index.csv", "all"), ("raw.csv", "pano"))
    )
    keys = [row["key"] for row in rows]
    for file, other in (("subtask_index.csv", subtasks), ("raw.csv", raw)):
        if [row["key"] for row in other] != keys:
            raise UserError(
                f"{home / file} and postprocessed.csv list different images: the files have different versions"
            )
    kept = [
        row
        for row, subtask, stored in zip(rows, subtasks, raw, strict=True)
        if subtask["all"] == "True" and stored["pano"] == "False"
    ]
    metres = [[number(row[key], f"{home}, {row['key']}") for key in ("easting", "northing")] for row in kept]
    names = [f"{folder}/images/{row['key']}.jpg" for row in kept]
    return Places(names, np.array(metres, np.float64).reshape(-1, 2))


def _benchmark(
    name: str,
    root: Path,
    database: Places,
    queries: Places,
    radius: float,
    measure: PlaceMeasure,
    counts: Counts,
    said: str,
    left_out: str,
) -> Benchmark:
    gallery = len(database.names)
    notes = check_counts(name, root, gallery, len(queries.names), counts)
    files = [listed_files(root, part.names, HINT) for part in (database, queries)]
    positives = within(queries.metres, database.metres, radius)
    return make_benchmark(
        name,
        source=JoinedSource(*(part.source for part in files)),
        num_gallery=gallery,
        queries=np.arange(gallery, gallery + len(queries.names)),
        positives=positives,
        digest=fingerprint(files, positives, measure.difficulties),
        measure=measure,
        difficulties=measure.difficulties,
        notes=notes,
        rules=Rules(said, SIZES, left_out, ORDER),
    )


def read_names(folder: Path, side: str) -> Places:
    """The images of `folder/side`, sorted by name, with positions in the names. Raises UserError for other names."""
    names = sorted(_images(folder, side))
    return Places(names, np.array([utm_of(name) for name in names]).reshape(-1, 2))


def utm_of(name: str) -> tuple[float, float]:
    """Metres east and north, from an image's name.

    >>> utm_of("test/database/@0550521.92@4178662.62@10@S@@@@@@@@@@.jpg")
    (550521.92, 4178662.62)

    Raises UserError for a name without them.
    """
    parts = PurePosixPath(name).name.split("@")
    if len(parts) < 4 or parts[0]:
        raise UserError(
            f"{name} does not contain its position, @EAST@NORTH@...jpg in metres of UTM: another layout "
            "(benchmark.positions=true reads database.csv and queries.csv)"
        )
    return number(parts[1], name), number(parts[2], name)


def read_positions(folder: Path, side: str) -> Places:
    """The images below `folder/side` that are listed in `folder/side.csv`, sorted by name.

    Raises UserError for a table without the columns, since their names state the unit.
    """
    path = folder / f"{side}.csv"
    advice = "columns image,utm_east,utm_north: metres of UTM on WGS84"
    heading = read_lines(path, advice)[0]
    if not set(CSV_COLUMNS) <= {column.strip() for column in heading.split(",")}:
        raise UserError(
            f"{path} does not state the unit of its positions (it has {heading}): use {', '.join(CSV_COLUMNS)}"
        )
    rows = sorted(read_table(path, CSV_COLUMNS, advice), key=lambda row: row["image"])
    metres = [[number(row[key], f"{path}, {row['image']}") for key in CSV_COLUMNS[1:]] for row in rows]
    return Places([f"{side}/{row['image']}" for row in rows], np.array(metres, np.float64).reshape(-1, 2))


def _images(folder: Path, side: str) -> list[str]:
    """Images below `folder/side`, or in a list beside it. Raises UserError if there are none."""
    home, listed = folder / side, folder / f"{side}_images_paths.txt"
    if listed.exists():
        return [f"{side}/{line}" for line in read_lines(listed, HINT)]
    if not home.is_dir():
        raise UserError(f"folder not found: {home} ({HINT})")
    found = [
        path.relative_to(folder).as_posix() for path in home.rglob("*") if is_visible(path.name) and is_image(path.name)
    ]
    if not found:
        raise UserError(f"no images in {home} ({HINT})")
    return found


def within(queries: NDArray[np.float64], database: NDArray[np.float64], radius: float) -> tuple[IntArray, ...]:
    """For each query, (Q, 2), the ascending indices of the database images, (N, 2), within `radius` of it.

    Only images in a strip along the coordinate that varies most are compared.
    """
    axis = int(np.ptp(database, axis=0).argmax()) if len(database) else 0
    order = np.argsort(database[:, axis], kind="stable")
    along = database[order, axis]
    reach = radius + ROUNDING
    starts = np.searchsorted(along, queries[:, axis] - reach)
    ends = np.searchsorted(along, queries[:, axis] + reach, side="right")
    found = []
    for query, start, end in zip(queries, starts.tolist(), ends.tolist(), strict=True):
        rows = order[start:end]
        found.append(np.sort(rows[np.hypot(*(database[rows] - query).T) <= reach]))
    return tuple(found)


def first_hits(answers: IntArray, positives: Sequence[IntArray]) -> NDArray[np.float64]:
    """The 0-based rank of each query's first positive, (Q,); infinite if there is none in `answers`, (Q, k)."""
    hits = [np.flatnonzero(np.isin(head, near)) for head, near in zip(answers, positives, strict=True)]
    return np.array([ranks[0] if len(ranks) else np.inf for ranks in hits], np.float64)


def average_precision_cut(hits: BoolArray, positives: int) -> float:
    """AP of a list cut at k: the sum of the precision at each hit over min(k, positives); `hits` is (k,)."""
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].sum() / min(len(hits), positives))


class PlaceMeasure(FirstAnswersMeasure):
    """Recall@k: the share of queries with a positive among the first k; with `maps` also mAP@k.

    Queries without a positive count as failures; mAP@k leaves them out.
    """

    name = ""

    def __init__(self, kappas: Sequence[int] = KAPPAS, maps: bool = False) -> None:
        self.kappas, self.maps = tuple(map(int, kappas)), bool(maps)
        self.depth = max(self.kappas)

    @property
    def difficulties(self) -> tuple[Difficulty, ...]:
        """The names of the figures."""
        maps = [f"mAP@{k}" for k in self.kappas] if self.maps else []
        return (*(f"recall@{k}" for k in self.kappas), *maps)

    def figures(self, truth: GroundTruth, rankings: Mapping[Difficulty, Ranked]) -> Figures:
        """1 or 0 for each query and k, and the mean; AP for mAP@k."""
        answers = next(iter(rankings.values())).top_k
        first = first_hits(answers, truth.easy)
        values = {f"recall@{k}": (first < k).astype(np.float64) for k in self.kappas}
        for k in self.kappas if self.maps else ():
            values[f"mAP@{k}"] = np.array(
                [
                    average_precision_cut(_padded(np.isin(head[:k], near), k), len(near)) if len(near) else np.nan
                    for head, near in zip(answers, truth.easy, strict=True)
                ]
            )
        return Figures({name: mean_scores(own) for name, own in values.items()})

    def settings(self) -> dict[str, object]:
        """The arguments of the constructor."""
        return {"kappas": self.kappas, "maps": self.maps}


def _padded(hits: BoolArray, k: int) -> BoolArray:
    return np.pad(hits, (0, k - len(hits)))

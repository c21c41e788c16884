"""Visual place recognition: Pittsburgh, MSLS, Nordland, Tokyo 24/7; recall of images within 25 m, or some frames.

The layout and rule are those of VPR-methods-evaluation and of mapillary_sls. Several sets go under one name and differ:
the variant is part of the name.
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
# Rounding of differences of coordinates, which are given in centimetres.
ROUNDING = 1e-6
SIDES = ("database", "queries")
# What a table of positions may have: metres of UTM on the datum WGS84, which names of images hold too.
CSV_COLUMNS = ("image", "utm_east", "utm_north")
MSLS_CITIES = ("cph", "sf")
HINT = "docs/benchmarks.md says what to fetch, and where it must lie"
RECALL = "share of all queries with an image within {near} among the first k"
SIZES = "whole, not cropped; the size is the method's (224 to 640 pixels are usual)"
ORDER = "equal scores stand in the order of sorted names; inner products of unit descriptors, whose order L2 has too"
FAILURES = "nothing: a query without a near image, or that could not be read, counts as a failure"


@dataclass(frozen=True)
class Places:
    """Images below a root and where they were taken: names, and (N, 2) metres east and north."""

    names: list[str]
    metres: NDArray[np.float64]

    def take(self, rows: IntArray) -> Places:
        """Some of them, in that order."""
        return Places([self.names[row] for row in rows.tolist()], self.metres[rows])


def places_benchmark(
    root: str | Path,
    name: str,
    split: str = "images/test",
    positions: bool = False,
    radius: float = RADIUS,
    counts: Counts = None,
) -> Benchmark:
    """Database and queries of a set of places, each image's position in its name `@EAST@NORTH@...` or in a table.

    Args:
        root: the set's folder.
        name: what results call it, variant included.
        split: the folder below it with `database/` and `queries/`; a list `database_images_paths.txt` beside such a
            folder replaces what is found in it.
        positions: read `database.csv` and `queries.csv` beside the folders instead of names; columns `CSV_COLUMNS`.
        radius: metres within which a database image is a positive, that distance included.
        counts: how many images the variant has.

    Raises UserError for no such folder, images that are missing or listed twice, names without a position, a table
    that does not say its datum, another number than `counts`.
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
    """Two seasons of one railway, frame by frame: `root/ref` and `root/query`, in the order of numbers in names.

    Args:
        root: the folder.
        name: what results call it, variant included.
        every: the query at place i shows the database frame i times this.
        tolerance: how many frames off still count.
        counts: how many images the variant has.

    Raises UserError as `places_benchmark`, and for more queries than frames.
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
            f"{root}: {len(queries.names):,} queries, each {every} frames on, of {len(database.names):,} database "
            "frames: another variant"
        )
    near = f"{tolerance} frames of its own"
    return _benchmark(
        name, root, database, queries, tolerance, PlaceMeasure(), counts, RECALL.format(near=near), FAILURES
    )


def _by_numbers(name: str) -> tuple[list[int], str]:
    """Sorts names by the numbers in them, padded or not."""
    return [int(part) for part in re.findall(r"\d+", name)], name


def msls_benchmark(
    root: str | Path, name: str, cities: Sequence[str] = MSLS_CITIES, radius: float = RADIUS, counts: Counts = None
) -> Benchmark:
    """Mapillary street-level sequences as published: `root/train_val/CITY/{database,query}` with their tables.

    Images of the subtask `all` that are no panoramas; queries without a positive are left out, as the official
    evaluator does. The cities lie in one gallery.

    Args:
        root: the folder of MSLS.
        name: what results call it, variant included.
        cities: those whose images are taken.
        radius, counts: as for `places_benchmark`.

    Raises UserError as `places_benchmark`.
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
        f"{RECALL.format(near=f'{radius:g} m')}, and mAP@k over min(k, positives), as mapillary_sls has them",
        "panoramas, images of no subtask, queries without a near image",
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
            raise UserError(f"{home / file} names other images than postprocessed.csv: files of several versions")
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
    """The images of `folder/side`, by sorted names that hold their positions. Raises UserError for other names."""
    names = sorted(_images(folder, side))
    return Places(names, np.array([utm_of(name) for name in names]).reshape(-1, 2))


def utm_of(name: str) -> tuple[float, float]:
    """Metres east and north in an image's name.

    >>> utm_of("test/database/@0550521.92@4178662.62@10@S@@@@@@@@@@.jpg")
    (550521.92, 4178662.62)

    Raises UserError for a name without them.
    """
    parts = PurePosixPath(name).name.split("@")
    if len(parts) < 4 or parts[0]:
        raise UserError(
            f"{name} does not hold its position, @EAST@NORTH@...jpg in metres of UTM: another layout "
            "(benchmark.positions=true reads database.csv and queries.csv)"
        )
    return number(parts[1], name), number(parts[2], name)


def read_positions(folder: Path, side: str) -> Places:
    """The images that `folder/side.csv` lists below `folder/side`, by sorted names.

    Raises UserError for a table without the columns, which say the datum.
    """
    path = folder / f"{side}.csv"
    advice = "columns image,utm_east,utm_north: metres of UTM on WGS84"
    heading = read_lines(path, advice)[0]
    if not set(CSV_COLUMNS) <= {column.strip() for column in heading.split(",")}:
        raise UserError(f"{path} does not say what its positions are (it has {heading}): {', '.join(CSV_COLUMNS)} do")
    rows = sorted(read_table(path, CSV_COLUMNS, advice), key=lambda row: row["image"])
    metres = [[number(row[key], f"{path}, {row['image']}") for key in CSV_COLUMNS[1:]] for row in rows]
    return Places([f"{side}/{row['image']}" for row in rows], np.array(metres, np.float64).reshape(-1, 2))


def _images(folder: Path, side: str) -> list[str]:
    """Images below `folder/side`, or those that a list beside it names. Raises UserError where there are none."""
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
    """For each query, (Q, 2), the ascending database positions, (N, 2), no further than `radius` from it.

    Only images in a strip of that width are compared, of the coordinate that varies most.
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
    """The 0-based rank of each query's first positive, (Q,); infinite where there is none in `answers`, (Q, k)."""
    hits = [np.flatnonzero(np.isin(head, near)) for head, near in zip(answers, positives, strict=True)]
    return np.array([ranks[0] if len(ranks) else np.inf for ranks in hits], np.float64)


def average_precision_cut(hits: BoolArray, positives: int) -> float:
    """AP of a list that was cut at k: precision at each hit, summed, over min(k, positives); `hits` is (k,)."""
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].sum() / min(len(hits), positives))


class PlaceMeasure(FirstAnswersMeasure):
    """Recall@k: the share of queries with a positive among the first k; with `maps` also mAP@k.

    Queries without a positive are failures, of mAP@k they are left out.
    """

    name = ""

    def __init__(self, kappas: Sequence[int] = KAPPAS, maps: bool = False) -> None:
        self.kappas, self.maps = tuple(map(int, kappas)), bool(maps)
        self.depth = max(self.kappas)

    @property
    def difficulties(self) -> tuple[Difficulty, ...]:
        """The figures' names."""
        maps = [f"mAP@{k}" for k in self.kappas] if self.maps else []
        return (*(f"recall@{k}" for k in self.kappas), *maps)

    def figures(self, truth: GroundTruth, rankings: Mapping[Difficulty, Ranked]) -> Figures:
        """1 or 0 for each query and each k, and their mean; AP for mAP@k."""
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
        """The k, and whether there is mAP@k."""
        return {"kappas": self.kappas, "maps": self.maps}


def _padded(hits: BoolArray, k: int) -> BoolArray:
    return np.pad(hits, (0, k - len(hits)))

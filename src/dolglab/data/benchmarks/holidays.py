"""INRIA Holidays (Jegou et al., ECCV 2008): 500 queries, each searched among the other 1,490 photographs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dolglab.contracts import Benchmark, IntArray, Orientation
from dolglab.data.benchmarks.listing import (
    Counts,
    Rules,
    check_counts,
    fingerprint,
    listed_files,
    make_benchmark,
    read_lines,
)
from dolglab.data.sources import OrientedSource
from dolglab.errors import UserError, truncate_list
from dolglab.measures import GroupedAveragePrecision

Turned = Literal["stored", "exif", "upright"]
LIST, ROTATIONS = "holidays_images.dat", "holidays-rotate.yaml"
FETCH = "dolglab prepare task=holidays lists what to download"
# EXIF orientations by clockwise rotation in degrees.
CLOCKWISE = {0: 1, 90: 6, 180: 3, 270: 8}
SAID = {
    "stored": "as stored, EXIF ignored",
    "exif": "turned according to their EXIF",
    "upright": "turned by MultiGrain's manual list, EXIF ignored",
}


def holidays_benchmark(
    root: str | Path, turned: Turned = "upright", counts: Counts = None, name: str | None = None
) -> Benchmark:
    """The photographs of `holidays_images.dat`; the first of each group of a hundred numbers is the query.

    Args:
        root: folder with `holidays_images.dat`, `jpg/` and, for `upright`, `holidays-rotate.yaml`.
        turned: `stored` as the pixels are, `exif` by their EXIF, `upright` by the manual list.
        counts: numbers of photographs and queries.
        name: the name in results.

    Raises UserError for another value of `turned`, invalid lists, and photographs that are missing or listed twice.
    """
    if turned not in get_args(Turned):
        raise UserError(f"benchmark.turned must be {', '.join(get_args(Turned))}, not {turned}")
    root, name = Path(root), name or f"holidays_{turned}"
    listed = read_lines(root / LIST, FETCH)
    queries, positives = groups_of(listed, root / LIST)
    notes = check_counts(name, root, len(listed), len(queries), counts)
    files = listed_files(root / "jpg", listed, FETCH)
    orientation: Orientation = "ignore" if turned == "stored" else "exif"
    turns = read_rotations(root / ROTATIONS, listed) if turned == "upright" else {}
    return make_benchmark(
        name,
        source=OrientedSource(files.source, turns) if turned == "upright" else files.source,
        num_gallery=len(listed),
        queries=queries,
        positives=positives,
        digest=fingerprint([files], positives, turned, sorted(turns.items())),
        measure=GroupedAveragePrecision(["all"], np.ones((1, len(queries)), np.bool_)),
        difficulties=("all",),
        orientation=orientation,
        itself=True,
        notes=notes,
        rules=Rules(
            "mAP by trapezoids (holidays_map.py); positives that are not found have precision 0",
            f"not cropped, {SAID[turned]}; the method chooses the size (a longer side of 1,024 is usual)",
            "the query itself, which has no rank",
        ),
    )


def groups_of(listed: list[str], path: Path) -> tuple[IntArray, tuple[IntArray, ...]]:
    """Positions of the queries, and of the others in each query's group. Raises UserError for other names."""
    wrong = [name for name in listed if not re.fullmatch(r"\d{6}\.jpg", name)]
    if wrong:
        raise UserError(f"{path} has {truncate_list(wrong)} instead of 1GGGNN.jpg: it belongs to another data set")
    numbers = np.array([int(name[:6]) for name in listed], np.int64)
    queries = np.flatnonzero(numbers % 100 == 0)
    members = [np.flatnonzero((numbers // 100 == numbers[query] // 100) & (numbers % 100 != 0)) for query in queries]
    alone = [listed[query] for query, others in zip(queries.tolist(), members, strict=True) if not len(others)]
    if alone:
        raise UserError(f"{path}: queries without another photograph in their group: {truncate_list(alone)}")
    return queries, tuple(members)


def read_rotations(path: Path, listed: list[str]) -> dict[str, int]:
    """EXIF orientations by name, from YAML with clockwise degrees. Raises UserError for other degrees or names."""
    import yaml

    advice = f"{FETCH}; turned=stored and turned=exif do not need it"
    text = "\n".join(read_lines(path, advice))
    try:
        degrees = yaml.safe_load(text)
        found = {str(name): CLOCKWISE[int(turn)] for name, turn in degrees.items()}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a list of NAME: 90, 180 or 270 ({advice})") from error
    unknown = sorted(found.keys() - set(listed))
    if unknown:
        raise UserError(f"{path} has {truncate_list(unknown)}, which are not in {LIST}: the versions differ")
    return found

"""INRIA Holidays (Jegou et al., ECCV 2008): 500 queries, each among all 1,491 photographs, itself left out."""

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
FETCH = "dolglab prepare task=holidays says what to fetch"
# EXIF's orientations of photographs that are to be turned clockwise, by degrees.
CLOCKWISE = {0: 1, 90: 6, 180: 3, 270: 8}
SAID = {
    "stored": "as stored, EXIF ignored",
    "exif": "turned as their EXIF says",
    "upright": "turned by hand, by MultiGrain's list on the stored pixels, EXIF ignored",
}


def holidays_benchmark(
    root: str | Path, turned: Turned = "upright", counts: Counts = None, name: str | None = None
) -> Benchmark:
    """The photographs of `holidays_images.dat`; the first of each hundred numbers is the query for the others.

    Args:
        root: folder with `holidays_images.dat`, `jpg/` and, for `upright`, `holidays-rotate.yaml`.
        turned: `stored` as their pixels lie, `exif` as they state, `upright` by the list of those turned by hand.
        counts: how many photographs and queries there are.
        name: what results call it.

    Raises UserError for a way of turning there is not, lists of another form, photographs missing or listed twice.
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
            "mAP by trapezoids (holidays_map.py), a positive that is not found counts as one at precision 0",
            f"whole, {SAID[turned]}; the size is the method's (a longer side of 1,024 is usual)",
            "the query itself, which takes no rank",
        ),
    )


def groups_of(listed: list[str], path: Path) -> tuple[IntArray, tuple[IntArray, ...]]:
    """Positions of the queries, and for each those of the others of its hundred. Raises UserError for other names."""
    wrong = [name for name in listed if not re.fullmatch(r"\d{6}\.jpg", name)]
    if wrong:
        raise UserError(f"{path} names {truncate_list(wrong)}, not 1GGGNN.jpg: the list of another data set")
    numbers = np.array([int(name[:6]) for name in listed], np.int64)
    queries = np.flatnonzero(numbers % 100 == 0)
    members = [np.flatnonzero((numbers // 100 == numbers[query] // 100) & (numbers % 100 != 0)) for query in queries]
    alone = [listed[query] for query, others in zip(queries.tolist(), members, strict=True) if not len(others)]
    if alone:
        raise UserError(f"{path}: queries without another photograph of their group: {truncate_list(alone)}")
    return queries, tuple(members)


def read_rotations(path: Path, listed: list[str]) -> dict[str, int]:
    """EXIF orientations by name, from YAML of degrees clockwise. Raises UserError for other degrees or names."""
    import yaml

    advice = f"{FETCH}; turned=stored and turned=exif go without"
    text = "\n".join(read_lines(path, advice))
    try:
        degrees = yaml.safe_load(text)
        found = {str(name): CLOCKWISE[int(turn)] for name, turn in degrees.items()}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no list of NAME: 90, 180 or 270 ({advice})") from error
    unknown = sorted(found.keys() - set(listed))
    if unknown:
        raise UserError(f"{path} turns {truncate_list(unknown)}, which {LIST} does not list: another version")
    return found

"""The data behind a run's figures, stored beside its card: the head of each ranking, ranks, ground truth and measure.

The size depends on the queries and their ground truth, not on the gallery, unless the measure needs a label of each
gallery image.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Difficulty, Figures, GroundTruth, Measure, Ranked, Ranking
from dolglab.data.benchmarks.disc21 import CopyMeasure
from dolglab.data.benchmarks.ilias import ILIASMeasure
from dolglab.data.benchmarks.met import MetMeasure
from dolglab.data.benchmarks.places import PlaceMeasure
from dolglab.data.benchmarks.products import ProductMeasure
from dolglab.data.gldv2_benchmarks import GLDv2Recognition, GLDv2Retrieval
from dolglab.errors import UserError
from dolglab.io import atomic_path, file_name
from dolglab.measures import GroupedAveragePrecision, RevisitedMeasure

MEASURES = (
    *(RevisitedMeasure, GroupedAveragePrecision, GLDv2Retrieval, GLDv2Recognition, ILIASMeasure),
    *(PlaceMeasure, MetMeasure, CopyMeasure, ProductMeasure),
)
# Measures of other packages.
ENTRY_POINT_GROUP = "dolglab.measures"
PARTS = ("easy", "hard", "junk")
SETTING = "measure."
# What zipfile, numpy and a measure raise for a file that is truncated, was changed or is another; RuntimeError is for a
# flag of encryption or an unknown compression.
DAMAGED = (
    *(OSError, ValueError, LookupError, TypeError, ArithmeticError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
Arrays = dict[str, NDArray[Any]]


class Stored(NamedTuple):
    """Stored rankings: their digest, and the figures computed from them."""

    digest: str
    figures: Figures


def rankings_file(folder: Path, benchmark: str) -> Path:
    """The file of a run's rankings on a benchmark."""
    return folder / "rankings" / f"{file_name(benchmark)}.npz"


def write_rankings(folder: Path, ranking: Ranking) -> Path | None:
    """Store the data behind a ranking's figures; None if it has no rankings."""
    arrays = stored_arrays(ranking)
    if not arrays:
        return None
    path = rankings_file(folder, ranking.benchmark.name)
    with atomic_path(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return path


def stored_arrays(ranking: Ranking) -> Arrays:
    """The arrays that `write_rankings` stores, by name; empty without rankings.

    `measure` and its settings, `easy`, `hard` and `junk` with the `counts` (3, Q) of each query; of each distinct list
    i of rankings `top.i` and `scores.i` as far as the measure looks, `ranks.i`, and by difficulty its number.
    """
    if not ranking.rankings:
        return {}
    benchmark, measure = ranking.benchmark, ranking.benchmark.measure
    parts = {part: getattr(benchmark.ground_truth, part) for part in PARTS}
    distinct = list({id(ranked): ranked for ranked in ranking.rankings.values()}.values())
    arrays: Arrays = {
        "measure": np.asarray(type(measure).__name__),
        **{f"{SETTING}{name}": np.asarray(value) for name, value in measure.settings().items()},
        "counts": np.array([[len(own) for own in found] for found in parts.values()], np.int32),
        **{part: _joined(found) for part, found in parts.items()},
        "difficulties": np.asarray(list(ranking.rankings)),
        "lists": np.array([[one is own for one in distinct].index(True) for own in ranking.rankings.values()]),
    }
    for number, ranked in enumerate(distinct):
        arrays[f"top.{number}"] = ranked.top_k[:, : measure.depth].astype(np.int32)
        arrays[f"scores.{number}"] = ranked.scores[:, : measure.depth].astype(np.float32)
        arrays[f"ranks.{number}"] = _joined(ranked.ranks)
    return arrays


def digest_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    """A SHA-256 of named arrays; in hex."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def read_rankings(path: Path) -> Stored:
    """Read stored rankings, and compute their figures again.

    Raises UserError for a missing or damaged file, and for an unknown measure.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        # Opened here, because numpy does not close a truncated archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            arrays = {name: np.asarray(kept[name]) for name in kept.files}
        measure = _measure(arrays)
        truth, rankings = _contents(arrays, measure)
        return Stored(digest_of(arrays), measure.figures(truth, rankings))
    except DAMAGED as error:
        raise UserError(f"{path} does not hold the rankings of a run ({error})") from None


def _measure(arrays: Arrays) -> Measure:
    name = str(arrays["measure"])
    known: dict[str, Callable[..., Measure]] = {kind.__name__: kind for kind in MEASURES}
    # Only code of installed packages is run.
    known |= {entry.name: entry.load() for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == name}
    if name not in known:
        raise UserError(f"the measure {name} is in a package that is not installed: evaluate again, and set cards=FILE")
    settings = {key.removeprefix(SETTING): value for key, value in arrays.items() if key.startswith(SETTING)}
    return known[name](**settings)


def _contents(arrays: Arrays, measure: Measure) -> tuple[GroundTruth, dict[Difficulty, Ranked]]:
    """Ground truth, and the rankings at each difficulty."""
    counts = arrays["counts"]
    truth = GroundTruth(*(_parted(arrays[part], own) for part, own in zip(PARTS, counts, strict=True)))
    wanted = measure.ground_truth_ids(truth)
    lists = []
    for number in range(int(arrays["lists"].max()) + 1):
        top, scores = arrays[f"top.{number}"].astype(np.int64), arrays[f"scores.{number}"]
        ranks = _parted(arrays[f"ranks.{number}"], np.array([len(own) for own in wanted]))
        if not len(top) == len(scores) == len(truth):
            raise ValueError("the numbers of rankings and queries differ")
        lists.append(Ranked(top, scores, wanted, ranks))
    pairs = zip(arrays["difficulties"].tolist(), arrays["lists"].tolist(), strict=True)
    return truth, {difficulty: lists[number] for difficulty, number in pairs}


def _joined(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int32]:
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int32)


def _parted(joined: NDArray[Any], counts: NDArray[Any]) -> tuple[NDArray[np.int64], ...]:
    """Split an array into parts of the given lengths. Raises ValueError if they do not add up."""
    if (counts < 0).any() or len(joined) != counts.sum():
        raise ValueError("the numbers of ranks and images differ")
    return tuple(np.split(joined.astype(np.int64), np.cumsum(counts)[:-1]))

"""Whether the figures of a card follow from the rankings that its run kept beside it, or are those of another run."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dolglab.contracts import DIFFICULTIES, GroundTruth, Ranked, Ranking
from dolglab.errors import UserError
from dolglab.io import atomic_path, file_name
from dolglab.measures import RevisitedMeasure, ground_truth_ids_of
from dolglab.results.card import read_card

# Rounding of a mean over queries by another library.
TOLERANCE = 1e-9
# What numpy raises of a file that is cut off, was changed or is another.
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
PARTS = ("easy", "hard", "junk")
Figures = Mapping[str, Any]


def ranks_file(folder: Path, benchmark: str) -> Path:
    """Where a run keeps the ranks that its figures on a benchmark follow from."""
    return folder / "rankings" / f"{file_name(benchmark)}.npz"


def write_ranks(folder: Path, ranking: Ranking) -> Path | None:
    """Keep, query by query, the ranks of easy, hard and junk images at each difficulty, and how many those are.

    As many numbers as the ground truth has, whatever the gallery. None where the ranking has no ranks.
    """
    if not ranking.ranks:
        return None
    truth = ranking.benchmark.ground_truth
    counts = {part: np.array([len(found) for found in getattr(truth, part)], np.int32) for part in PARTS}
    ranks = {f"ranks_{d}": np.concatenate(found).astype(np.int32) for d, found in ranking.ranks.items()}
    path = ranks_file(folder, ranking.benchmark.name)
    with atomic_path(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **counts, **ranks)
    return path


def figures_from_ranks(path: Path, kappas: Sequence[int]) -> dict[str, Figures]:
    """By difficulty what `write_ranks` kept comes to: {"map", "ap", "mp_at_k"}. Raises UserError for no such file."""
    try:
        # Opened here: numpy leaves a file open that is no whole archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            arrays = {name: np.asarray(kept[name], np.int64) for name in kept.files}
        counts = np.stack([arrays.pop(part) for part in PARTS])
        if (counts < 0).any() or any(ranks.shape != (counts.sum(),) for ranks in arrays.values()):
            raise ValueError("it has another number of ranks than of images")
    except DAMAGED as error:
        raise UserError(f"{path} does not hold the ranks of a run ({error})") from None
    # The images' own positions are not kept, nor asked for: any that differ will do.
    images = [np.split(np.arange(own.sum()), np.cumsum(own)[:-1]) for own in counts.T]
    truth = GroundTruth(*map(tuple, zip(*images, strict=True)))
    ids, ends = ground_truth_ids_of(truth), np.cumsum(counts.sum(axis=0))[:-1]
    nothing = np.empty((len(ids), 0))
    rankings = {
        name.removeprefix("ranks_"): Ranked(
            nothing.astype(np.int64), nothing.astype(np.float32), ids, tuple(np.split(ranks, ends))
        )
        for name, ranks in arrays.items()
    }
    return {d: dict(scores) for d, scores in RevisitedMeasure(kappas).figures(truth, rankings).evaluation.items()}


def verify(path: Path, against: Sequence[Path] = ()) -> bool:
    """Print for each figure of the card at `path` whether it is the same again, and return whether all are.

    Figures are computed from the ranks beside the card or, with `against`, read from the cards of runs that evaluated
    the same benchmarks again. A card that was edited is told too. Raises UserError for what is no card, and where two
    of `against` are of one benchmark.
    """
    same = True
    try:
        card = read_card(path)
    except UserError as error:
        card = read_card(path, edited=True)
        print(error)
        same = False
    again = _figures_again(against)
    for benchmark in card["benchmarks"]:
        try:
            found = again.get(benchmark["digest"], {}) if against else _from_ranks(path, benchmark)
        except UserError as error:
            print(f"{benchmark['name']}: not checked: {error}")
            same = False
            continue
        for difficulty, figures in _figures_of(benchmark).items():
            other = found.get(difficulty)
            equal = other is not None and _same(figures, other)
            text = "not there" if other is None else f"{_percent(other['map'])} again"
            print(
                f"{benchmark['name']} {difficulty}: {_percent(figures['map'])} in the card, {text}: "
                f"{'same' if equal else 'NOT the same'}"
            )
            same &= equal
    return same


def _figures_again(cards: Sequence[Path]) -> dict[str, dict[str, Figures]]:
    """By the digest of each benchmark the figures of the card that has it."""
    again: dict[str, dict[str, Figures]] = {}
    for card in cards:
        for benchmark in read_card(card)["benchmarks"]:
            if benchmark["digest"] in again:
                raise UserError(f"several of these cards are of {benchmark['name']}: give only that of the same model")
            again[benchmark["digest"]] = _figures_of(benchmark)
    return again


def _from_ranks(path: Path, benchmark: Mapping[str, Any]) -> dict[str, Figures]:
    # Others divide their positives otherwise, or not at all, by rules that ranks do not show.
    if benchmark.get("measure", "mAP") != RevisitedMeasure.name or not {*benchmark["map"]} <= {*DIFFICULTIES}:
        raise UserError("its measure needs more than ranks: evaluate again, and verify against that card (cards=FILE)")
    kappas = sorted({int(k) for by_k in benchmark["mp_at_k"].values() for k in by_k})
    return figures_from_ranks(ranks_file(path.parent, benchmark["name"]), kappas)


def _figures_of(benchmark: Mapping[str, Any]) -> dict[str, Figures]:
    """By difficulty the figures of a card's benchmark."""
    return {
        difficulty: {
            "map": value,
            "ap": benchmark["ap"].get(difficulty, ()),
            "mp_at_k": list(benchmark["mp_at_k"].get(difficulty, {}).values()),
        }
        for difficulty, value in benchmark["map"].items()
    }


def _same(figures: Figures, other: Figures) -> bool:
    """Whether all numbers are the same; null, for not finite, is equal to NaN."""
    for name, value in figures.items():
        own, again = np.asarray(value, np.float64), np.asarray(other[name], np.float64)
        if own.shape != again.shape or not np.allclose(own, again, 0, TOLERANCE, equal_nan=True):
            return False
    return True


def _percent(value: float | None) -> str:
    return "none" if value is None or math.isnan(value) else f"{100 * value:.2f} %"

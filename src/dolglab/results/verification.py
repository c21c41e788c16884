"""Verify the figures of a card, from the stored rankings of its run or against another run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dolglab.errors import UserError
from dolglab.results.card import read_card
from dolglab.results.stored_rankings import rankings_file, read_rankings

# Tolerance for the rounding of a mean over queries by another library.
TOLERANCE = 1e-9
Figures = Mapping[str, Any]


def verify(path: Path, against: Sequence[Path] = ()) -> bool:
    """Print for each figure of the card at `path` whether it is reproduced, and return whether all are.

    Figures are computed from the rankings beside the card or, with `against`, read from the cards of runs that
    evaluated the same benchmarks again. Edited cards and rankings are reported. Raises UserError for an invalid card,
    and if two of `against` are of the same benchmark.
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
        file = rankings_file(path.parent, benchmark["name"])
        try:
            stored = None if against else read_rankings(file)
        except UserError as error:
            print(f"{benchmark['name']}: not checked: {error}")
            same = False
            continue
        if stored is not None and stored.digest != benchmark.get("rankings", stored.digest):
            print(f"{benchmark['name']}: {file} was changed since the card was written")
            same = False
        found = again.get(benchmark["digest"], {}) if stored is None else stored.figures.evaluation
        for difficulty, figures in _figures_of(benchmark).items():
            other = found.get(difficulty)
            equal = other is not None and _same(figures, other)
            text = "missing" if other is None else f"{_percent(other['map'])} again"
            print(
                f"{benchmark['name']} {difficulty}: {_percent(figures['map'])} in the card, {text}: "
                f"{'same' if equal else 'NOT the same'}"
            )
            same &= equal
    return same


def _figures_again(cards: Sequence[Path]) -> dict[str, dict[str, Figures]]:
    """The figures of cards by their benchmarks' digests."""
    again: dict[str, dict[str, Figures]] = {}
    for card in cards:
        for benchmark in read_card(card)["benchmarks"]:
            if benchmark["digest"] in again:
                raise UserError(f"several cards are of {benchmark['name']}: set only the card of the same model")
            again[benchmark["digest"]] = _figures_of(benchmark)
    return again


def _figures_of(benchmark: Mapping[str, Any]) -> dict[str, Figures]:
    """The figures of a card's benchmark by difficulty."""
    return {
        difficulty: {
            "map": value,
            "ap": benchmark["ap"].get(difficulty, ()),
            "mp_at_k": list(benchmark["mp_at_k"].get(difficulty, {}).values()),
        }
        for difficulty, value in benchmark["map"].items()
    }


def _same(figures: Figures, other: Figures) -> bool:
    """Whether all numbers are the same; null (not finite) equals NaN."""
    for name, value in figures.items():
        own, again = np.asarray(value, np.float64), np.asarray(other[name], np.float64)
        if own.shape != again.shape or not np.allclose(own, again, 0, TOLERANCE, equal_nan=True):
            return False
    return True


def _percent(value: float | None) -> str:
    return "none" if value is None or math.isnan(value) else f"{100 * value:.2f} %"

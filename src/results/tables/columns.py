"""Which columns some cards fill, and with what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from src.contracts import DIFFICULTIES, USAGES
from src.results.tables.model import Card, Dataset, FigureColumn


def map_columns(cards: Sequence[Card]) -> tuple[FigureColumn, ...]:
    """A column for each data set and difficulty in `cards`, in the order data sets first appear."""
    names = dataset_names(cards)
    return tuple(
        FigureColumn(dataset, names[dataset], _label(difficulty, measure, alone=len(found) == 1), difficulty)
        for dataset, (measure, found) in _difficulties(cards).items()
        for difficulty in found
    )


def precision_columns(cards: Sequence[Card]) -> dict[str, tuple[FigureColumn, ...]]:
    """By table title, one title a data set: a column for each difficulty and k in `cards`."""
    tables: dict[str, tuple[FigureColumn, ...]] = {}
    for column in map_columns(cards):
        difficulty = "" if column.label == "mAP" else f"{column.label} "
        found = [
            FigureColumn(column.dataset, "", f"{difficulty}@{k}", column.difficulty, k) for k in _kappas(cards, column)
        ]
        title = f"Mean precision at k on {column.group}, %"
        tables[title] = (*tables.get(title, ()), *found)
    return {title: columns for title, columns in tables.items() if columns}


def value_of(card: Card, column: FigureColumn) -> float | None:
    """The card's figure, a fraction; None where it has none."""
    benchmark = by_dataset(card).get(column.dataset)
    if benchmark is None:
        return None
    if column.k is None:
        return benchmark["map"].get(column.difficulty)
    return benchmark["mp_at_k"].get(column.difficulty, {}).get(column.k)


def by_dataset(card: Card) -> dict[Dataset, Mapping[str, Any]]:
    """The card's benchmarks."""
    return {(b["name"], b["digest"]): b for b in card["benchmarks"]}


def dataset_names(cards: Sequence[Card]) -> dict[Dataset, str]:
    """Data sets by name; those of one name but other contents also by digest, for they do not compare."""
    datasets = list(dict.fromkeys(dataset for card in cards for dataset in by_dataset(card)))
    count = Counter(name for name, _ in datasets)
    return {(name, digest): name if count[name] == 1 else f"{name} ({digest[:6]})" for name, digest in datasets}


def row_names(cards: Sequence[Card]) -> list[str]:
    """The cards' methods; where two share one, the run's name tells them apart, and a number what is left."""
    methods = Counter(card["method"] for card in cards)
    names = [c["method"] if methods[c["method"]] == 1 else f"{c['method']} ({c['name']})" for c in cards]
    return [
        name if names.count(name) == 1 else f"{name} #{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def _difficulties(cards: Sequence[Card]) -> dict[Dataset, tuple[str, list[str]]]:
    """Each data set's measure, and what it has figures for."""
    found: dict[Dataset, set[str]] = {}
    measures: dict[Dataset, str] = {}
    for card in cards:
        for dataset, benchmark in by_dataset(card).items():
            found.setdefault(dataset, set()).update(benchmark["difficulties"])
            # Cards of before there were others do not name it.
            measures[dataset] = benchmark.get("measure", "mAP")
    order = (*DIFFICULTIES, *USAGES)
    return {dataset: (measures[dataset], [d for d in order if d in present]) for dataset, present in found.items()}


def _label(difficulty: str, measure: str, alone: bool) -> str:
    if measure == "mAP":
        return measure if alone else difficulty
    return f"{difficulty} {measure}"


def _kappas(cards: Sequence[Card], column: FigureColumn) -> list[str]:
    benchmarks = [b for card in cards if (b := by_dataset(card).get(column.dataset))]
    return sorted({k for b in benchmarks for k in b["mp_at_k"].get(column.difficulty, {})}, key=int)

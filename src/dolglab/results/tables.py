"""Which columns some cards fill, and with what."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dolglab.contracts import DIFFICULTIES, USAGES
from dolglab.results.card import labels, map_intervals
from dolglab.results.statistics import DRAWS

Card = Mapping[str, Any]
# A data set's name, and the digest of its ground truth.
Dataset = tuple[str, str]
MISSING, MINUS = "–", "−"  # noqa: RUF001
NUMBERS: tuple[str, ...] = tuple(str(number) for number in range(1, 1000))
LETTERS: tuple[str, ...] = tuple(string.ascii_lowercase)


@dataclass(frozen=True)
class Column:
    """A column's data set, its heading, and the one it shares with its neighbours (empty where the title says it)."""

    dataset: Dataset
    group: str
    label: str


@dataclass(frozen=True)
class FigureColumn(Column):
    """A column of figures: which difficulty and, for mP@k, which k."""

    difficulty: str
    k: str | None = None


@dataclass(frozen=True)
class Cell:
    """What one cell says, what stands below it in small, the marks of its notes, and whether it leads its column."""

    text: str
    notes: tuple[str, ...] = ()
    best: bool = False
    below: str = ""


# A row's heading and its cells, one a column.
Row = tuple[Cell, tuple[Cell, ...]]


@dataclass(frozen=True)
class Table:
    """Rows under named columns; a terminal leaves out a table that is not `brief`."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    brief: bool = True

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over runs of columns of one data set, with the number of columns under each."""
        return [(group, count) for (_, group), count in Counter((c.dataset, c.group) for c in self.columns).items()]


@dataclass(frozen=True)
class Summary:
    """A section: tables that are not empty, the notes they mark, by mark, and lines on the whole."""

    title: str
    tables: tuple[Table, ...]
    notes: Mapping[str, str]
    lines: tuple[str, ...]


@dataclass
class Footnotes:
    """Gives notes their marks in the order they are first needed."""

    marks: Sequence[str] = NUMBERS
    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """The mark of a note, the same for the same text."""
        if text not in self.texts:
            self.texts.append(text)
        return self.marks[self.texts.index(text)]

    def marked(self) -> dict[str, str]:
        """The notes by their marks."""
        return dict(zip(self.marks, self.texts, strict=False))


INTERVALS = f"With each mAP stands its 95 % interval: percentile bootstrap over the queries, {DRAWS:,} draws."
GAP = "GAP is measured on one list of all queries' answers; it is no mean over queries, and has no interval."


def map_table(cards: Sequence[Card], headings: Sequence[Cell], notes: Footnotes) -> Table:
    """mAP by data set and difficulty, each figure with its interval."""
    columns = map_columns(cards)
    rows = [
        [replace(_cell(card, column, notes, 2), below=_interval(card, column)) for column in columns] for card in cards
    ]
    return Table("Mean average precision, %", columns, with_best(headings, rows))


def precision_tables(cards: Sequence[Card], headings: Sequence[Cell], notes: Footnotes) -> list[Table]:
    """mP@k, a table a data set."""
    tables: list[Table] = []
    for title, columns in precision_columns(cards).items():
        rows = [[_cell(card, column, notes, 1) for column in columns] for card in cards]
        tables.append(Table(title, columns, with_best(headings, rows), brief=False))
    return tables


def interval_lines(cards: Sequence[Card]) -> list[str]:
    """What the intervals are, and what has none."""
    gap = {benchmark.get("measure") == "GAP" for card in cards for benchmark in card["benchmarks"]}
    return [*([INTERVALS] if False in gap else []), *([GAP] if True in gap else [])]


def with_best(headings: Sequence[Cell], rows: Sequence[Sequence[Cell]]) -> tuple[Row, ...]:
    """Rows in which the highest of each column's figures is marked, if there are two; what reads alike is alike."""
    best = [_best([cell.text for cell in column]) for column in zip(*rows, strict=True)]
    return tuple(
        (heading, tuple(replace(cell, best=cell.text == leader) for cell, leader in zip(row, best, strict=True)))
        for heading, row in zip(headings, rows, strict=True)
    )


def cell_notes(card: Card, dataset: Dataset, notes: Footnotes) -> tuple[str, ...]:
    """The marks of what sets the card's figures on a data set apart."""
    marks = [notes.mark(label) for label in labels(card, by_dataset(card)[dataset])]
    return tuple(sorted(marks, key=notes.marks.index))


def _cell(card: Card, column: FigureColumn, notes: Footnotes, decimals: int) -> Cell:
    value = value_of(card, column)
    if value is None:
        return Cell(MISSING)
    return Cell(f"{100 * value:.{decimals}f}", cell_notes(card, column.dataset, notes))


def _interval(card: Card, column: FigureColumn) -> str:
    """The figure's interval; a dash where it is of too few queries, nothing where there can be none."""
    intervals = map_intervals(by_dataset(card).get(column.dataset, {"measure": "GAP"}))
    if column.difficulty not in intervals or value_of(card, column) is None:
        return ""
    found = intervals[column.difficulty]
    return MISSING if found is None else f"{100 * found[0]:.1f}{MISSING}{100 * found[1]:.1f}"


def _best(texts: Sequence[str]) -> str | None:
    figures = [text for text in texts if text != MISSING]
    return max(figures, key=float) if len(figures) > 1 else None


KNOWN = ("crop", "scales", "resize", "image_size")
# What goes without saying, until another row says something else.
UNSAID = {"crop": MISSING, "image_size": "unlimited", "precision": "32-true", "orientation": "exif", "index": "exact"}


def protocol_line(card: Card) -> str:
    """How the card's figures were made, in one line: crop, scales, resize, image size, the rest, then the stages."""
    return _line(protocol_parts(card))


def protocol_lines(cards: Sequence[Card]) -> tuple[str, list[str]]:
    """What all cards share, and for each what it does not; the latter are empty where everything is shared."""
    parts = [protocol_parts(card) for card in cards]
    keys = list(dict.fromkeys(key for part in parts for key in part))
    shared = [key for key in keys if len({part.get(key) for part in parts}) == 1]
    own = [{key: part.get(key, UNSAID.get(key, "none")) for key in keys if key not in shared} for part in parts]
    return _line({key: parts[0][key] for key in shared}), [_line(part) for part in own]


def protocol_parts(card: Card) -> dict[str, str]:
    """What is said of each step, in the order of the steps; what says nothing is left out."""
    given = card["protocol"]
    parts = {"crop": _per_dataset({b["name"]: b["crop"] for b in card["benchmarks"]})}
    parts |= {key: short(given.get(key)) for key in KNOWN[1:]}
    parts |= {key: short(value) for key, value in given.items() if key not in KNOWN}
    stages = {b["name"]: b.get("stages", {}) for b in card["benchmarks"]}
    for stage in dict.fromkeys(key for found in stages.values() for key in found):
        parts[stage] = _per_dataset({name: _worded(found.get(stage), stage) for name, found in stages.items()})
    return {key: text for key, text in parts.items() if text}


def dataset_lines(cards: Sequence[Card]) -> list[str]:
    """A line on each data set: its size and the digest that identifies its ground truth."""
    found = {dataset: benchmark for card in cards for dataset, benchmark in by_dataset(card).items()}
    return [
        f"{name}: {b['queries']:,} queries, {b['gallery']:,} gallery images, digest {digest[:12]}"
        + (f", photographs: {b['release']}" if b.get("release") else "")
        for (name, digest), b in found.items()
    ]


def short(value: object) -> str:
    """A setting's value; of a mapping its names, of nothing nothing."""
    if isinstance(value, list | tuple | Mapping):
        return ", ".join(short(item) for item in value)
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _worded(value: object, stage: str = "") -> str:
    """A stage's value; of a mapping its names with their values, without digests and what is not set."""
    if isinstance(value, Mapping):
        said = {key: item for key, item in value.items() if item is not None and not str(key).endswith("digest")}
        return ", ".join(
            _within(item) if key in (stage, "kind") else f"{str(key).replace('_', ' ')} {_within(item)}"
            for key, item in said.items()
        )
    if isinstance(value, list | tuple):
        return ", ".join(_within(item) for item in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else short(value)


def _within(value: object) -> str:
    text = _worded(value)
    return f"({text})" if isinstance(value, Mapping | list | tuple) and len(value) > 1 else text


def _per_dataset(texts: Mapping[str, str]) -> str:
    """One text for all data sets, or each with its data set's name."""
    if len(set(texts.values())) > 1:
        return ", ".join(f"{text or 'none'} ({name})" for name, text in texts.items())
    return next(iter(texts.values()), "")


def _line(parts: Mapping[str, Any]) -> str:
    return "; ".join(f"{key.replace('_', ' ')} {text}" for key, text in parts.items())


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

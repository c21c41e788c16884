"""Tables, and their contents from result cards: rows, columns, figures and protocols."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from dolglab.contracts import DIFFICULTIES, EXTERNAL, USAGES
from dolglab.results.card import UNKNOWN, caveats, crop_of, external, rules_of

Card = Mapping[str, Any]
# A data set's name, and the digest of its ground truth.
Dataset = tuple[str, str]
# Average precision of each query; None if it is left out.
AP = Sequence[float | None]
# Costs in a card: name and axis label in a chart, column in a table, and the factor to that column's unit.
COSTS = {
    "image_seconds": ("time per image", "seconds per image", "ms per image", 1000.0),
    "query_seconds": ("time per query", "seconds per query", "ms per query", 1000.0),
    "image_bytes": ("memory per image", "bytes per image", "bytes per image", 1.0),
}
MISSING, MINUS = "–", "−"  # noqa: RUF001


@dataclass(frozen=True)
class Column:
    """A column: its data set, the heading shared with its neighbours (empty if the title has it), and its own heading.

    A column of figures also has a difficulty and, for mP@k, its k.
    """

    dataset: Dataset
    group: str
    label: str
    difficulty: str = ""
    k: str | None = None


@dataclass(frozen=True)
class Cell:
    """A cell: its text, the marks of its notes, whether it is the best of its column, and small text below."""

    text: str
    notes: tuple[str, ...] = ()
    best: bool = False
    below: str = ""


# A row's heading and its cells, one per column.
Row = tuple[Cell, tuple[Cell, ...]]


@dataclass(frozen=True)
class Table:
    """Rows under named columns; only `brief` tables are printed in a terminal."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    brief: bool = True

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over the columns of each data set, with their numbers of columns."""
        return [(group, count) for (_, group), count in Counter((c.dataset, c.group) for c in self.columns).items()]


@dataclass(frozen=True)
class Summary:
    """A section: tables that are not empty, their notes by mark, general lines, and a conclusion.

    The conclusion is first on a page, and last in a terminal.
    """

    title: str
    tables: tuple[Table, ...]
    notes: Mapping[str, str]
    lines: tuple[str, ...]
    conclusion: tuple[str, ...] = ()


class Footnotes:
    """Assigns marks to notes in order of first use: 1, 2, ... or those in `marks`."""

    def __init__(self, marks: Iterable[str] | None = None) -> None:
        self._unused = iter(marks or map(str, count(1)))
        self._by_text: dict[str, str] = {}

    def mark(self, *texts: str) -> tuple[str, ...]:
        """The marks of notes, in the order of the marks; the same text always has the same mark.

        >>> notes = Footnotes()
        >>> notes.mark("cropped"), notes.mark("selected here", "cropped")
        (('1',), ('1', '2'))
        """
        for text in texts:
            if text not in self._by_text:
                self._by_text[text] = next(self._unused)
        return tuple(mark for text, mark in self._by_text.items() if text in texts)

    def texts(self) -> dict[str, str]:
        """The notes by their marks."""
        return {mark: text for text, mark in self._by_text.items()}


def make_table(
    title: str, headings: Sequence[Cell], columns: Mapping[Column, Sequence[Cell]], brief: bool = True
) -> Table:
    """A table of columns with a cell for each heading; without columns it has no rows."""
    rows = zip(headings, zip(*columns.values(), strict=True), strict=True) if columns else ()
    return Table(title, tuple(columns), tuple(rows), brief)


def mark_best(column: Sequence[Cell]) -> list[Cell]:
    """A column with the highest figure marked, if it has at least two; equal texts are all marked."""
    figures = [cell.text for cell in column if cell.text != MISSING]
    best = max(figures, key=float) if len(figures) > 1 else None
    return [replace(cell, best=cell.text == best) for cell in column]


def by_dataset(card: Card) -> dict[Dataset, Mapping[str, Any]]:
    """The card's benchmarks by data set."""
    return {(b["name"], b["digest"]): b for b in card["benchmarks"]}


def benchmark_of(card: Card, dataset: Dataset) -> Mapping[str, Any]:
    """The card's benchmark on a data set; empty if it has none."""
    return by_dataset(card).get(dataset, {})


def dataset_names(cards: Sequence[Card]) -> dict[Dataset, str]:
    """The names of data sets; different ones with the same name also have their digest, because they do not compare."""
    datasets = list(dict.fromkeys(dataset for card in cards for dataset in by_dataset(card)))
    namesakes = Counter(name for name, _ in datasets)
    return {(name, digest): name if namesakes[name] == 1 else f"{name} ({digest[:6]})" for name, digest in datasets}


def row_names(cards: Sequence[Card]) -> list[str]:
    """The cards' methods; the same method of several runs gets the run's name, and then a number if needed."""
    methods = Counter(card["method"] for card in cards)
    names = [c["method"] if methods[c["method"]] == 1 else f"{c['method']} ({c['name']})" for c in cards]
    return [
        name if names.count(name) == 1 else f"{name} #{names[: row + 1].count(name)}" for row, name in enumerate(names)
    ]


def map_columns(cards: Sequence[Card]) -> list[Column]:
    """A column for each data set and difficulty in `cards`, in the order data sets first appear."""
    columns: list[Column] = []
    for dataset, name in dataset_names(cards).items():
        benchmarks = [benchmark for card in cards if (benchmark := benchmark_of(card, dataset))]
        # Old cards do not name their measure, mAP.
        measure = benchmarks[-1].get("measure", "mAP")
        present = dict.fromkeys(difficulty for benchmark in benchmarks for difficulty in benchmark["difficulties"])
        # Difficulties of other benchmarks follow in order of appearance.
        known = [difficulty for difficulty in (*DIFFICULTIES, *USAGES) if difficulty in present]
        for difficulty in dict.fromkeys([*known, *present]):
            alone = "mAP" if len(present) == 1 else difficulty
            label = alone if measure == "mAP" else f"{difficulty} {measure}".removeprefix("all ").strip()
            columns.append(Column(dataset, name, label, difficulty))
    return columns


def main_columns(cards: Sequence[Card]) -> dict[Dataset, Column]:
    """The main column of each data set: Medium if there is one, otherwise the first."""
    main: dict[Dataset, Column] = {}
    for column in map_columns(cards):
        if column.dataset not in main or column.difficulty == "medium":
            main[column.dataset] = column
    return main


def measure_of(column: Column) -> str:
    """The measure of a column's figures, in words: "mAP", "Medium mAP", "GAP"."""
    # If the label is only a difficulty, the table's title says mAP.
    return f"{column.label.capitalize()} mAP" if column.label == column.difficulty else column.label


def value_of(card: Card, column: Column) -> float | None:
    """The card's figure, a fraction; None if it has none."""
    benchmark = benchmark_of(card, column.dataset)
    if column.k is None:
        return benchmark.get("map", {}).get(column.difficulty)
    return benchmark.get("mp_at_k", {}).get(column.difficulty, {}).get(column.k)


def ap_of(card: Card, column: Column) -> AP | None:
    """The card's AP of each query; None without a figure, and for GAP, which is not a mean over queries."""
    benchmark = benchmark_of(card, column.dataset)
    if value_of(card, column) is None or benchmark.get("measure") == "GAP":
        return None
    return benchmark["ap"].get(column.difficulty)


def cell_notes(card: Card, dataset: Dataset, notes: Footnotes) -> tuple[str, ...]:
    """The marks of the notes on the card's figures on a data set."""
    return notes.mark(*caveats(card, benchmark_of(card, dataset)))


def dataset_lines(cards: Sequence[Card]) -> list[str]:
    """A line on each data set: its size, the digest that identifies its ground truth, and its own protocol."""
    benchmarks: dict[Dataset, Mapping[str, Any]] = {}
    for card in cards:
        for dataset, benchmark in by_dataset(card).items():
            # Descriptors from elsewhere do not say how images were read.
            if dataset not in benchmarks or not external(benchmark):
                benchmarks[dataset] = benchmark
    return [
        f"{name}: {b['queries']:,} queries, {b['gallery']:,} gallery images, digest {digest[:12]}"
        + (f", photographs: {b['release']}" if b.get("release") else "")
        + "".join(f". {topic.capitalize()}: {rule}" for topic, rule in rules_of(b).items())
        + "."
        for (name, digest), b in benchmarks.items()
    ]


# The first keys of a protocol, in this order.
PROTOCOL_KEYS = ("crop", "scales", "scale_pooling", "resize", "image_size")
# Defaults, which are stated only if another row differs.
UNSTATED = {
    "crop": MISSING,
    "scale_pooling": "mean",
    "image_size": "unlimited",
    "precision": "32-true",
    "orientation": "exif",
    "colour": "ignore",
    "index": "exact",
    # Descriptors that were computed here, or none.
    EXTERNAL: "",
}
# What is unknown of descriptors from elsewhere.
OF_DESCRIPTORS = (*PROTOCOL_KEYS, "precision", "orientation", "colour")


def protocol_line(card: Card) -> str:
    """The card's protocol in one line: crop, scales, resize, image size, the rest, then the stages."""
    return _line(protocol_parts(card))


def protocol_lines(cards: Sequence[Card]) -> tuple[str, list[str]]:
    """The common part of the cards' protocols, and for each card the rest; empty if everything is common."""
    parts = [protocol_parts(card) for card in cards]
    keys = list(dict.fromkeys(key for part in parts for key in part))
    shared = [key for key in keys if len({part.get(key) for part in parts}) == 1]
    own = [
        {key: part.get(key) or _unstated(key, EXTERNAL in part) for key in keys if key not in shared} for part in parts
    ]
    return _line({key: parts[0][key] for key in shared}), [_line(part) for part in own]


def _unstated(key: str, elsewhere: bool) -> str:
    """The text of a step that a row does not state; `elsewhere` says that its descriptors were computed there."""
    return UNKNOWN if elsewhere and key in OF_DESCRIPTORS else UNSTATED.get(key, "none")


def protocol_parts(card: Card) -> dict[str, str]:
    """The text of each step of the protocol, in order, without empty ones."""
    protocol = card["protocol"]
    parts = {"crop": _per_dataset({b["name"]: crop_of(b) for b in card["benchmarks"]})}
    parts |= {key: _setting(protocol.get(key)) for key in PROTOCOL_KEYS[1:]}
    if any(map(external, card["benchmarks"])):
        parts |= {"scales": UNKNOWN, "resize": UNKNOWN}
    parts |= {key: _setting(value) for key, value in protocol.items() if key not in PROTOCOL_KEYS}
    stages = {b["name"]: b.get("stages", {}) for b in card["benchmarks"]}
    for stage in dict.fromkeys(key for settings in stages.values() for key in settings):
        # Older cards repeat the stage's name.
        texts = {name: _stage(own.get(stage), stage).removeprefix(f"{stage} ") for name, own in stages.items()}
        parts[stage] = _per_dataset(texts)
    return {key: text for key, text in parts.items() if text}


def _setting(value: object) -> str:
    """A setting's value as text: the keys of a mapping, and nothing for None."""
    if isinstance(value, list | tuple | Mapping):
        return ", ".join(_setting(item) for item in value)
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _stage(value: object, stage: str = "") -> str:
    """A stage's value as text; a mapping's keys with values, without digests and unset ones."""
    if isinstance(value, Mapping):
        stated = {str(key): item for key, item in value.items() if item is not None and not str(key).endswith("digest")}
        return ", ".join(
            ("" if key in (stage, "kind") else f"{key.replace('_', ' ')} ") + _bracketed(item)
            for key, item in stated.items()
        )
    if isinstance(value, list | tuple):
        return ", ".join(_bracketed(item) for item in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else _setting(value)


def _bracketed(value: object) -> str:
    text = _stage(value)
    return f"({text})" if isinstance(value, Mapping | list | tuple) and len(value) > 1 else text


def _per_dataset(texts: Mapping[str, str]) -> str:
    """One text for all data sets, or each with its data set's name."""
    if len(set(texts.values())) > 1:
        return ", ".join(f"{text or 'none'} ({name})" for name, text in texts.items())
    return next(iter(texts.values()), "")


def _line(parts: Mapping[str, str]) -> str:
    return "; ".join(f"{key.replace('_', ' ')} {text}" for key, text in parts.items() if text)

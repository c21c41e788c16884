"""The leaderboard's tables: a benchmark's rows from cards and published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from dolglab.contracts import DIFFICULTIES
from dolglab.results.card import caveats, is_gldv2, map_intervals, training_data
from dolglab.results.card_charts import file_stem
from dolglab.results.comparison_tables import leader_lines
from dolglab.results.published import ROWS, SOURCES, Published
from dolglab.results.tables import (
    MISSING,
    Card,
    Column,
    Dataset,
    Footnotes,
    benchmark_of,
    dataset_lines,
    dataset_names,
    map_columns,
    protocol_lines,
    row_names,
    value_of,
)

UNKNOWN, SINGLE = "not stated", "single stage"
# The columns of a figure by their headings, each a field of `Row`.
PARTS = {"claimed": "claimed", "others": "remeasured", "here": "here"}

# The training data of released local features, by class (Potje et al., CVPR 2024).
LOCAL_FEATURES = {"XFeat": "MegaDepth and COCO (matching)"}


@dataclass(frozen=True)
class Figure:
    """A figure in percent, with the marks of its notes, its interval, and the address of its card, if any."""

    value: float
    marks: tuple[str, ...] = ()
    interval: str = ""
    address: str = ""


@dataclass
class Row:
    """A model on one benchmark: for each difficulty the claimed figure, the one remeasured by others, and ours.

    `training` is its training data; `milliseconds` and `bytes` are per image, None if unknown.
    """

    model: str
    address: str = ""
    marks: tuple[str, ...] = ()
    training: str = UNKNOWN
    dimensions: int | None = None
    stage: str = SINGLE
    milliseconds: float | None = None
    bytes: float | None = None
    claimed: dict[str, Figure] = field(default_factory=dict)
    remeasured: dict[str, Figure] = field(default_factory=dict)
    here: dict[str, Figure] = field(default_factory=dict)

    def best(self, difficulty: str) -> float:
        """The figure for sorting: measured here or, without that, remeasured by others, or claimed."""
        found = (part.get(difficulty) for part in (self.here, self.remeasured, self.claimed))
        return next((figure.value for figure in found if figure), -1.0)

    @property
    def measured(self) -> bool:
        """Whether it was measured here."""
        return bool(self.here)


@dataclass(frozen=True)
class Board:
    """A benchmark's table: rows, best first; headings of figures by difficulty; notes by mark; general lines.

    The conclusion is about the rows measured here.
    """

    name: str
    figures: Mapping[str, str]
    rows: tuple[Row, ...]
    notes: Mapping[str, str]
    lines: tuple[str, ...] = ()
    conclusion: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Its anchor on the page."""
        return file_stem(self.name)

    @property
    def extent(self) -> str:
        """The numbers of rows that were measured here, and of published ones."""
        measured = sum(row.measured for row in self.rows)
        counts = {"measured": measured, "published": len(self.rows) - measured}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)

    @property
    def parts(self) -> dict[str, str]:
        """The columns of each figure, from `PARTS`: "here", and the others if a row has them."""
        return {
            heading: part
            for heading, part in PARTS.items()
            if part == "here" or any(getattr(row, part) for row in self.rows)
        }


@dataclass(frozen=True)
class Run:
    """A card, its original folder, and the addresses of its copy and of its model's page."""

    card: Card
    folder: Path
    address: str = ""
    page: str = ""


def make_boards(runs: Sequence[Run], published: Sequence[Published] = ROWS) -> list[Board]:
    """A table for each benchmark with figures of a card or a publication; those measured here first.

    Published figures are in the row of the card with the same method, on the benchmark of the same name.
    """
    names = dataset_names([run.card for run in runs])
    boards = [_measured_board(on_benchmark(runs, dataset), dataset, name, published) for dataset, name in names.items()]
    boards.sort(key=lambda board: sum(row.measured for row in board.rows), reverse=True)
    measured = {name for name, _ in names}
    others = dict.fromkeys(name for row in published for name in row.figures if name not in measured)
    return [*boards, *(_board(name, name, {}, [], published, Footnotes()) for name in others)]


def on_benchmark(runs: Sequence[Run], dataset: Dataset) -> list[Run]:
    """The runs on a benchmark, without their other benchmarks, so that protocols are about this one."""
    return [
        replace(run, card={**run.card, "benchmarks": [part]})
        for run in runs
        if (part := benchmark_of(run.card, dataset))
    ]


def _measured_board(runs: Sequence[Run], dataset: Dataset, name: str, published: Sequence[Published]) -> Board:
    """The table of a benchmark; the runs' cards contain only this benchmark."""
    columns = {column.difficulty: column for column in map_columns([run.card for run in runs])}
    main = columns.get("medium") or next(iter(columns.values()))
    # Best first, so that notes are numbered in the order of rows.
    runs = sorted(runs, key=lambda run: value_of(run.card, main) or 0.0, reverse=True)
    cards = [run.card for run in runs]
    notes = Footnotes()
    shared, own = protocol_lines(cards)
    rows = [
        _row(run, row_name, protocol, columns, notes)
        for run, row_name, protocol in zip(runs, row_names(cards), own, strict=True)
    ]
    lines = [*dataset_lines(cards), *([f"Protocol of what was measured here: {shared}."] if shared else [])]
    board = _board(name, dataset[0], columns, rows, published, notes)
    return replace(board, lines=tuple(lines), conclusion=tuple(leader_lines(cards)))


def _row(run: Run, name: str, protocol: str, columns: Mapping[str, Column], notes: Footnotes) -> Row:
    """The row of a card on its benchmark; `protocol` is how it differs from the other rows'."""
    (benchmark,) = run.card["benchmarks"]
    costs, intervals = benchmark.get("costs", {}), map_intervals(benchmark)
    row = Row(
        name,
        address=run.page,
        marks=notes.mark(protocol) if protocol else (),
        training=training_of(run.card),
        dimensions=int(costs["dimensions"]) if "dimensions" in costs else None,
        stage=_stage(benchmark.get("stages", {})),
        milliseconds=1000 * costs["image_seconds"] if "image_seconds" in costs else None,
        bytes=costs.get("image_bytes"),
    )
    marks = notes.mark(*caveats(run.card, benchmark))
    for difficulty, column in columns.items():
        value, interval = value_of(run.card, column), intervals.get(difficulty)
        if value is not None:
            text = "" if interval is None else f"{100 * interval[0]:.1f}{MISSING}{100 * interval[1]:.1f}"
            row.here[difficulty] = Figure(100 * value, marks, text, run.address)
    return row


def _board(
    name: str,
    published_as: str,
    columns: Mapping[str, Column],
    rows: list[Row],
    published: Sequence[Published],
    notes: Footnotes,
) -> Board:
    """The table of `rows` and of published figures on a benchmark."""
    for source in published:
        if not (figures := source.figures.get(published_as, {})):
            continue
        part = "claimed" if source.kind == "claimed" else "remeasured"
        # Two sources may claim different figures of one method: each has a row.
        alike = [row for row in rows if row.model == source.method and not getattr(row, part)]
        if alike:
            row = alike[0]
        else:
            stage = "re-ranked" if source.reranked else SINGLE
            row = Row(source.method, training=source.training or UNKNOWN, dimensions=source.dimensions, stage=stage)
            rows.append(row)
        marks = notes.mark(SOURCES[source.source])
        getattr(row, part).update({difficulty: Figure(value, marks) for difficulty, value in figures.items()})
    found = {difficulty for row in rows for part in (row.claimed, row.remeasured, row.here) for difficulty in part}
    labels = {difficulty: column.label for difficulty, column in columns.items()}
    shown = {d: labels.get(d, d) for d in dict.fromkeys([*DIFFICULTIES, *labels, *sorted(found)]) if d in found}
    if {"easy", "medium"} <= shown.keys():
        # Publications rarely report it, and it is the least informative.
        del shown["easy"]
    decisive = sorted(shown, key=lambda difficulty: difficulty != "medium")
    headings = {difficulty: _heading(label, len(shown) == 1) for difficulty, label in shown.items()}
    rows.sort(key=lambda row: [row.best(difficulty) for difficulty in decisive], reverse=True)
    return Board(name, headings, tuple(rows), notes.texts())


def _heading(label: str, alone: bool) -> str:
    """A column's label as a heading; the only figure of a benchmark without difficulties is mAP.

    >>> _heading("hard", False), _heading("medium", True), _heading("public mAP@100", False), _heading("mAP", True)
    ('Hard', 'mAP', 'Public mAP@100', 'mAP')
    """
    if alone and label == "medium":
        return "mAP"
    # Names such as mAP and uAP keep their spelling.
    return label if label[1:2].isupper() else label[0].upper() + label[1:]


def training_of(card: Card) -> str:
    """The training data of a card's model, in a few words."""
    if training := card.get("training"):
        data = training_data(card)
        root = PurePosixPath(str(data.get("root") or "")).name
        return f"{'GLDv2' if is_gldv2(data) else root or 'own photographs'}, {training['landmarks']:,} landmarks"
    asked = card["config"].get("evaluate") or {}
    weights = str(((asked.get("model") or {}).get("backbone") or {}).get("name", ""))
    if weights:
        return f"backbone alone ({weights.partition('.')[2] or weights})"
    # External networks and descriptors do not state it.
    if asked.get("model") or asked.get("descriptors"):
        return UNKNOWN
    features = str((asked.get("features") or {}).get("_target_", ""))
    return LOCAL_FEATURES.get(features.rpartition(".")[2], "nothing")


def _stage(stages: Mapping[str, Any]) -> str:
    """Whether answers are from a single search, expanded queries, or re-ranking."""
    if "rerank" in stages:
        return "re-ranked"
    expanded = any("alpha" in step or "neighbours" in step for step in stages.get("post", ()))
    return "expanded" if expanded else SINGLE

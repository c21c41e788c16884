"""Cards as tables: a row a card, a column a figure, and the notes without which neither means anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from src.contracts import DIFFICULTIES, USAGES
from src.results.card import labels

Card = Mapping[str, Any]
MISSING = "–"  # noqa: RUF001
UNBOUNDED = 10_000
KNOWN_PROTOCOL = ("crop", "scales", "resize", "image_size")


@dataclass(frozen=True)
class Column:
    """A figure's place in the cards: data set (name and digest), difficulty and, for mP@k, k.

    `group` heads neighbouring columns of one data set; it is empty when the table's title names it.
    """

    dataset: tuple[str, str]
    group: str
    label: str
    difficulty: str
    k: str | None = None


@dataclass(frozen=True)
class Cell:
    """What one cell says, the numbers of the notes that qualify it, and whether it leads its column."""

    text: str
    notes: tuple[int, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table without a medium: `rows` pairs each row's heading with its cells, one a column."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, tuple[Cell, ...]], ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over runs of columns of one data set, with the number of columns under each."""
        return [(group, count) for (_, group), count in Counter((c.dataset, c.group) for c in self.columns).items()]


@dataclass(frozen=True)
class Summary:
    """All that is said of some cards: tables that are not empty, numbered notes, and lines on the whole."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    lines: tuple[str, ...]


class Footnotes:
    """Numbers notes from 1 in the order they are first needed."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def summarize(cards: Sequence[Card]) -> Summary:
    """The table of mAP and, for each data set, that of mP@k, with what qualifies their figures.

    One protocol shared by all is a line under the tables; protocols that differ are notes on the rows.
    """
    protocols = [protocol_line(card) for card in cards]
    shared = len(set(protocols)) == 1
    notes = Footnotes()
    headings = [
        Cell(name, () if shared else (notes.number(protocol),))
        for name, protocol in zip(row_names(cards), protocols, strict=True)
    ]
    wanted = {"Mean average precision, %": map_columns(cards), **precision_columns(cards)}
    tables = [
        _table(title, columns, cards, headings, notes, decimals=2 if columns[0].k is None else 1)
        for title, columns in wanted.items()
        if columns
    ]
    lines = [f"Protocol: {protocols[0]}"] if shared else []
    return Summary(tuple(tables), tuple(notes.texts), (*lines, *dataset_lines(cards)))


@dataclass(frozen=True)
class Uncut:
    """A rich table as wide as what it says: rich itself shortens figures to fit a narrow console."""

    table: RichTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.table, options.update(width=UNBOUNDED))


def print_table(cards: Sequence[Card], console: Console | None = None) -> None:
    """Print the mAP table of `cards` and its notes; columns are never cut. mP@k stands on the page."""
    console = console or Console()
    summary = summarize(cards)
    for table in summary.tables[:1]:
        console.print(Uncut(_rich_table(table)), crop=False)
    for line in _numbered(summary):
        console.print(Text(line), soft_wrap=True)


def markdown_table(cards: Sequence[Card]) -> str:
    """The same tables and notes as Markdown."""
    summary = summarize(cards)
    blocks = [f"**{table.title}**\n\n{_markdown(table)}" for table in summary.tables]
    blocks += [_escape(line) for line in _numbered(summary)]
    return "\n\n".join(blocks) + "\n"


def row_names(cards: Sequence[Card]) -> list[str]:
    """The cards' methods; where two share one, the run's name tells them apart."""
    count = Counter(card["method"] for card in cards)
    return [c["method"] if count[c["method"]] == 1 else f"{c['method']} ({c['name']})" for c in cards]


def protocol_line(card: Card) -> str:
    """How the card's figures were made, in one line: crop, scales, resize, image size, then the rest."""
    protocol = {"crop": _crops(card), **{key: card["protocol"].get(key) for key in KNOWN_PROTOCOL[1:]}}
    protocol |= {key: value for key, value in card["protocol"].items() if key not in KNOWN_PROTOCOL}
    said = {key: value for key, value in protocol.items() if value not in (None, {})}
    return "; ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in said.items())


def dataset_lines(cards: Sequence[Card]) -> list[str]:
    """A line on each data set: its size and the digest that identifies its ground truth."""
    found = {dataset: card_benchmark for card in cards for dataset, card_benchmark in _by_dataset(card).items()}
    return [
        f"{name}: {b['queries']:,} queries, {b['gallery']:,} gallery images, digest {digest[:12]}"
        + (f", photographs: {b['release']}" if b.get("release") else "")
        for (name, digest), b in found.items()
    ]


def map_columns(cards: Sequence[Card]) -> tuple[Column, ...]:
    """A column for each data set and difficulty in `cards`, in the order data sets first appear."""
    difficulties = _difficulties(cards)
    names = _dataset_names(list(difficulties))
    return tuple(
        Column(dataset, names[dataset], _label(difficulty, measure, alone=len(found) == 1), difficulty)
        for dataset, (measure, found) in difficulties.items()
        for difficulty in found
    )


def precision_columns(cards: Sequence[Card]) -> dict[str, tuple[Column, ...]]:
    """By table title, one title a data set: a column for each difficulty and k in `cards`."""
    tables: dict[str, tuple[Column, ...]] = {}
    for column in map_columns(cards):
        difficulty = "" if column.label == "mAP" else f"{column.label} "
        found = [Column(column.dataset, "", f"{difficulty}@{k}", column.difficulty, k) for k in _kappas(cards, column)]
        title = f"Mean precision at k on {column.group}, %"
        tables[title] = (*tables.get(title, ()), *found)
    return tables


def _table(
    title: str,
    columns: tuple[Column, ...],
    cards: Sequence[Card],
    headings: Sequence[Cell],
    notes: Footnotes,
    *,
    decimals: int,
) -> Table:
    rows = [[_value(card, column) for column in columns] for card in cards]
    texts = [[MISSING if v is None else f"{100 * v:.{decimals}f}" for v in row] for row in rows]
    best = [_best(column) for column in zip(*texts, strict=True)]
    body = [
        tuple(
            Cell(text, _cell_notes(card, column, notes) if text != MISSING else (), text == leader)
            for text, column, leader in zip(line, columns, best, strict=True)
        )
        for card, line in zip(cards, texts, strict=True)
    ]
    return Table(title, columns, tuple(zip(headings, body, strict=True)))


def _best(texts: Sequence[str]) -> str | None:
    """The highest of at least two figures, as printed: what reads the same is marked the same."""
    figures = [text for text in texts if text != MISSING]
    return max(figures, key=float) if len(figures) > 1 else None


def _value(card: Card, column: Column) -> float | None:
    benchmark = _by_dataset(card).get(column.dataset)
    if benchmark is None:
        return None
    if column.k is None:
        return benchmark["map"].get(column.difficulty)
    return benchmark["mp_at_k"].get(column.difficulty, {}).get(column.k)


def _cell_notes(card: Card, column: Column, notes: Footnotes) -> tuple[int, ...]:
    return tuple(notes.number(label) for label in labels(card, _by_dataset(card)[column.dataset]))


def _by_dataset(card: Card) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(b["name"], b["digest"]): b for b in card["benchmarks"]}


def _difficulties(cards: Sequence[Card]) -> dict[tuple[str, str], tuple[str, list[str]]]:
    """Each data set's measure, and what it has figures for."""
    found: dict[tuple[str, str], set[str]] = {}
    measures: dict[tuple[str, str], str] = {}
    for card in cards:
        for dataset, benchmark in _by_dataset(card).items():
            found.setdefault(dataset, set()).update(benchmark["difficulties"])
            # Cards of before there were others do not name it.
            measures[dataset] = benchmark.get("measure", "mAP")
    order = (*DIFFICULTIES, *USAGES)
    return {dataset: (measures[dataset], [d for d in order if d in present]) for dataset, present in found.items()}


def _label(difficulty: str, measure: str, alone: bool) -> str:
    if measure == "mAP":
        return measure if alone else difficulty
    return f"{difficulty} {measure}"


def _dataset_names(datasets: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Data sets by name; those of one name but other contents also by digest, for they do not compare."""
    count = Counter(name for name, _ in datasets)
    return {(n, digest): n if count[n] == 1 else f"{n} ({digest[:6]})" for n, digest in datasets}


def _kappas(cards: Sequence[Card], column: Column) -> list[str]:
    benchmarks = [b for card in cards if (b := _by_dataset(card).get(column.dataset))]
    return sorted({k for b in benchmarks for k in b["mp_at_k"].get(column.difficulty, {})}, key=int)


def _crops(card: Card) -> str | None:
    crops = {b["name"]: b["crop"] for b in card["benchmarks"]}
    if len(set(crops.values())) > 1:
        return ", ".join(f"{crop} ({name})" for name, crop in crops.items())
    return next(iter(crops.values()), None)


def _short(value: object) -> str:
    if isinstance(value, list | tuple | Mapping):
        return ", ".join(_short(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _marks(cell: Cell) -> str:
    return "".join(f" [{number}]" for number in cell.notes)


def _numbered(summary: Summary) -> list[str]:
    return [*(f"[{number}] {note}" for number, note in enumerate(summary.notes, 1)), *summary.lines]


def _rich_table(table: Table) -> RichTable:
    drawn = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("method")
    for column in table.columns:
        drawn.add_column(Text("\n".join(filter(None, [column.group, column.label]))), justify="right")
    for heading, cells in table.rows:
        figures = [Text(cell.text, "bold" if cell.best else "") + Text(_marks(cell)) for cell in cells]
        drawn.add_row(Text(heading.text + _marks(heading)), *figures)
    return drawn


def _markdown(table: Table) -> str:
    lines = (
        ["method", *(_escape(f"{c.group} {c.label}".strip()) for c in table.columns)],
        ["---", *["---:"] * len(table.columns)],
    )
    rows = [
        [
            _escape(heading.text + _marks(heading)),
            *((f"**{c.text}**" if c.best else c.text) + _marks(c) for c in cells),
        ]
        for heading, cells in table.rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *rows])


def _escape(text: str) -> str:
    """`text` as Markdown would show it, on one line of a table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")

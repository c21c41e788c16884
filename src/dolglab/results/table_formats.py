"""Tables as LaTeX, for a document that uses the booktabs package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from dolglab.results.tables import MINUS, MISSING, Cell, Summary, Table


def to_markdown(summaries: Sequence[Summary]) -> str:
    """Every table, note and line; the sections after the first under their titles."""
    blocks: list[str] = []
    for place, summary in enumerate(summaries):
        blocks += [f"## {_escape(summary.title)}"] if place else []
        blocks += [f"**{_escape(table.title)}**\n\n{_markdown_table(table)}" for table in summary.tables]
        blocks += [_escape(line) for line in numbered(summary)]
    return "\n\n".join(blocks) + "\n"


def numbered(summary: Summary) -> list[str]:
    """The section's notes behind their marks, then its lines."""
    return [*(f"[{mark}] {note}" for mark, note in summary.notes.items()), *summary.lines]


def _markdown_table(table: Table) -> str:
    lines = (
        ["method", *(_escape(f"{c.group} {c.label}".strip()) for c in table.columns)],
        ["---", *["---:"] * len(table.columns)],
    )
    rows = [
        [_escape(heading.text) + _markdown_marks(heading), *map(_markdown_figure, cells)]
        for heading, cells in table.rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *rows])


def _markdown_figure(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return text + (f" ({cell.below})" if cell.below else "") + _markdown_marks(cell)


def _markdown_marks(cell: Cell) -> str:
    return f" [{','.join(cell.notes)}]" if cell.notes else ""


def _escape(text: str) -> str:
    """`text` as Markdown would show it, on one line of a table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


UNBOUNDED = 10_000


@dataclass(frozen=True)
class Uncut:
    """A rich table as wide as what it says: rich itself shortens figures to fit a narrow console."""

    table: RichTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.table, options.update(width=UNBOUNDED))


def print_tables(summaries: Sequence[Summary], console: Console | None = None) -> None:
    """Print brief tables and all notes; columns are never cut. mP@k stands on the page."""
    console = console or Console()
    for place, summary in enumerate(summaries):
        if place:
            console.print(Text(f"\n{summary.title}", "bold"), soft_wrap=True)
        for table in summary.tables:
            if table.brief:
                # A title of the table itself would be wrapped to its width.
                console.print(Text(table.title, "italic"), soft_wrap=True)
                console.print(Uncut(_drawn(table)), crop=False)
        for line in numbered(summary):
            console.print(Text(line), soft_wrap=True)


def _drawn(table: Table) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("method")
    for column in table.columns:
        drawn.add_column(Text("\n".join(filter(None, [column.group, column.label]))), justify="right")
    for heading, cells in table.rows:
        drawn.add_row(Text(heading.text + _terminal_marks(heading)), *map(_text, cells))
    return drawn


def _text(cell: Cell) -> Text:
    text = Text(cell.text, "bold" if cell.best else "") + Text(_terminal_marks(cell))
    return text + Text(f"\n{cell.below}", "dim") if cell.below else text


def _terminal_marks(cell: Cell) -> str:
    return f" [{','.join(cell.notes)}]" if cell.notes else ""


HEAD = "% Needs \\usepackage{booktabs}, and UTF-8 where names have letters beyond ASCII."
ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "\n": " ",
        # What follows the end of a row must not look like its options.
        "[": "{[}",
        "]": "{]}",
        "*": "{*}",
        "…": r"\dots{}",
        MISSING: "--",
        MINUS: "$-$",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


def to_latex(summaries: Sequence[Summary]) -> str:
    """A `table` for every table, each with the notes it marks; a section's lines stand under its first.

    Captions name the sections after the first.
    """
    parts = [HEAD]
    for section, summary in enumerate(summaries):
        for place, table in enumerate(summary.tables):
            caption = f"{summary.title}: {table.title}" if section else table.title
            parts.append(_latex_table(table, caption, summary.notes, () if place else summary.lines))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """`text` as LaTeX would print it."""
    return text.translate(ESCAPES)


def _latex_table(table: Table, caption: str, notes: Mapping[str, str], lines: Sequence[str]) -> str:
    marked = {mark for heading, cells in table.rows for cell in (heading, *cells) for mark in cell.notes}
    under = [f"$^{{{mark}}}$ {escaped(note)}" for mark, note in notes.items() if mark in marked]
    under += [escaped(line) for line in lines]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{escaped(caption)}}}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{4pt}",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            *_groups(table),
            _row(["method", *(escaped(column.label) for column in table.columns)]),
            r"\midrule",
            *(line for heading, cells in table.rows for line in _lines(heading, cells)),
            r"\bottomrule",
            r"\end{tabular}",
            *([r"\par\smallskip", r"\raggedright"] if under else []),
            *(f"{line}\\par" for line in under),
            r"\end{table}",
        ]
    )


def _groups(table: Table) -> list[str]:
    """Headings over neighbouring columns, and the rules under them."""
    if not any(group for group, _ in table.groups):
        return []
    ends = list(accumulate((count for _, count in table.groups), initial=1))
    heads = [rf"\multicolumn{{{count}}}{{c}}{{{escaped(group)}}}" for group, count in table.groups]
    rules = [
        rf"\cmidrule(lr){{{start + 1}-{end}}}"
        for (group, _), (start, end) in zip(table.groups, pairwise(ends), strict=True)
        if group
    ]
    return [_row(["", *heads]), " ".join(rules)]


def _lines(heading: Cell, cells: Sequence[Cell]) -> list[str]:
    """A row, and below it a row in small where anything stands below its figures."""
    first = _row([escaped(heading.text) + _latex_marks(heading), *map(_latex_figure, cells)])
    if not any(cell.below for cell in cells):
        return [first]
    below = [rf"{{\scriptsize {escaped(cell.below)}}}" if cell.below else "" for cell in cells]
    return [first + "[-2pt]", _row(["", *below]) + "[2pt]"]


def _latex_figure(cell: Cell) -> str:
    text = escaped(cell.text)
    return (rf"\textbf{{{text}}}" if cell.best else text) + _latex_marks(cell)


def _latex_marks(cell: Cell) -> str:
    return f"$^{{{','.join(cell.notes)}}}$" if cell.notes else ""


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"

"""The tables of summaries as Markdown, on a terminal, and as LaTeX for a document that uses the booktabs package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeVar

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from dolglab.results.tables import MINUS, MISSING, Cell, Summary, Table

T = TypeVar("T")
LATEX_HEAD = "% Needs \\usepackage{booktabs}, and UTF-8 where names have letters beyond ASCII."
LATEX_ESCAPES = str.maketrans(
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


def to_markdown(summaries: Sequence[Summary]) -> str:
    """All tables, notes and lines; sections after the first have their titles."""
    blocks: list[str] = []
    for section, summary in enumerate(summaries):
        blocks += [f"## {escape_markdown(summary.title)}"] if section else []
        blocks += map(escape_markdown, summary.conclusion)
        for table in summary.tables:
            head = ["method", *(escape_markdown(f"{c.group} {c.label}".strip()) for c in table.columns)]
            rule = ["---", *["---:"] * len(table.columns)]
            rows = "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *_rows(table, _markdown_cell)])
            blocks.append(f"**{escape_markdown(table.title)}**\n\n{rows}")
        blocks += map(escape_markdown, _notes(summary))
        blocks += map(escape_markdown, summary.lines)
    return "\n\n".join(blocks) + "\n"


def print_tables(summaries: Sequence[Summary], console: Console | None = None) -> None:
    """Print brief tables and all notes; columns are never truncated. mP@k is only on the page."""
    console = console or Console()
    for section, summary in enumerate(summaries):
        if section:
            console.print(Text(f"\n{summary.title}", "bold"), soft_wrap=True)
        for table in summary.tables:
            if table.brief:
                # Printed separately, because rich wraps a table's title to its width.
                console.print(Text(table.title, "italic"), soft_wrap=True)
                console.print(_FullWidth(_rich_table(table)), crop=False)
        for line in (*_notes(summary), *summary.lines, *summary.conclusion):
            console.print(Text(line), soft_wrap=True)


def to_latex(summaries: Sequence[Summary]) -> str:
    """A `table` for each table, with its notes; a section's lines are below its first table.

    Captions contain the titles of sections after the first.
    """
    parts = [LATEX_HEAD]
    for section, summary in enumerate(summaries):
        lines = (*summary.conclusion, *summary.lines)
        for place, table in enumerate(summary.tables):
            caption = f"{summary.title}: {table.title}" if section else table.title
            parts.append(_latex_table(table, caption, summary.notes, () if place else lines))
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    """`text` escaped for Markdown, on one line of a table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def escape_latex(text: str) -> str:
    """`text` escaped for LaTeX.

    >>> print(escape_latex("95 % of R&D [a]"))
    95 \\% of R\\&D {[}a{]}
    """
    return text.translate(LATEX_ESCAPES)


def _rows(table: Table, write: Callable[[Cell], T]) -> list[list[T]]:
    """The heading and the cells of each row, formatted."""
    return [[write(cell) for cell in (heading, *cells)] for heading, cells in table.rows]


def _notes(summary: Summary) -> list[str]:
    return [f"[{mark}] {note}" for mark, note in summary.notes.items()]


def _marks(cell: Cell) -> str:
    return f" [{','.join(cell.notes)}]" if cell.notes else ""


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    text = f"**{text}**" if cell.best else text
    return text + (f" ({cell.below})" if cell.below else "") + _marks(cell)


@dataclass(frozen=True)
class _FullWidth:
    """A rich table at full width: rich itself shortens figures to fit a narrow console."""

    table: RichTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.table, options.update(width=10_000))


def _rich_table(table: Table) -> RichTable:
    rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    rich.add_column("method")
    for column in table.columns:
        rich.add_column(Text("\n".join(filter(None, [column.group, column.label]))), justify="right")
    for row in _rows(table, _rich_cell):
        rich.add_row(*row)
    return rich


def _rich_cell(cell: Cell) -> Text:
    text = Text(cell.text, "bold" if cell.best else "") + Text(_marks(cell))
    return text + Text(f"\n{cell.below}", "dim") if cell.below else text


def _latex_table(table: Table, caption: str, notes: Mapping[str, str], lines: Sequence[str]) -> str:
    marked = {mark for heading, cells in table.rows for cell in (heading, *cells) for mark in cell.notes}
    under = [f"$^{{{mark}}}$ {escape_latex(note)}\\par" for mark, note in notes.items() if mark in marked]
    under += [f"{escape_latex(line)}\\par" for line in lines]
    rows = zip(_rows(table, _latex_cell), _rows(table, _latex_below), strict=True)
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{4pt}",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            *_latex_groups(table),
            _latex_row(["method", *(escape_latex(column.label) for column in table.columns)]),
            r"\midrule",
            # Text below the figures of a row is an extra row, close to the first.
            *(
                f"{_latex_row(row)}[-2pt]\n{_latex_row(below)}[2pt]" if any(below) else _latex_row(row)
                for row, below in rows
            ),
            r"\bottomrule",
            r"\end{tabular}",
            *([r"\par\smallskip", r"\raggedright"] if under else []),
            *under,
            r"\end{table}",
        ]
    )


def _latex_groups(table: Table) -> list[str]:
    """Headings over groups of columns, with rules below."""
    if not any(group for group, _ in table.groups):
        return []
    ends = list(accumulate((count for _, count in table.groups), initial=1))
    heads = [rf"\multicolumn{{{count}}}{{c}}{{{escape_latex(group)}}}" for group, count in table.groups]
    rules = [
        rf"\cmidrule(lr){{{start + 1}-{end}}}"
        for (group, _), (start, end) in zip(table.groups, pairwise(ends), strict=True)
        if group
    ]
    return [_latex_row(["", *heads]), " ".join(rules)]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = rf"\textbf{{{escape_latex(cell.text)}}}" if cell.best else escape_latex(cell.text)
    return text + (f"$^{{{','.join(cell.notes)}}}$" if cell.notes else "")


def _latex_below(cell: Cell) -> str:
    return rf"{{\scriptsize {escape_latex(cell.below)}}}" if cell.below else ""

"""Tables as LaTeX, for a document that uses the booktabs package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from src.results.tables.model import MINUS, MISSING, Cell, Summary, Table

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
            parts.append(_table(table, caption, summary.notes, () if place else summary.lines))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """`text` as LaTeX would print it."""
    return text.translate(ESCAPES)


def _table(table: Table, caption: str, notes: Mapping[str, str], lines: Sequence[str]) -> str:
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
    first = _row([escaped(heading.text) + _marks(heading), *map(_figure, cells)])
    if not any(cell.below for cell in cells):
        return [first]
    below = [rf"{{\scriptsize {escaped(cell.below)}}}" if cell.below else "" for cell in cells]
    return [first + "[-2pt]", _row(["", *below]) + "[2pt]"]


def _figure(cell: Cell) -> str:
    text = escaped(cell.text)
    return (rf"\textbf{{{text}}}" if cell.best else text) + _marks(cell)


def _marks(cell: Cell) -> str:
    return f"$^{{{','.join(cell.notes)}}}$" if cell.notes else ""


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"

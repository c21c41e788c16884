"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from src.results.tables.model import Cell, Summary, Table


def to_markdown(summaries: Sequence[Summary]) -> str:
    """Every table, note and line; the sections after the first under their titles."""
    blocks: list[str] = []
    for place, summary in enumerate(summaries):
        blocks += [f"## {_escape(summary.title)}"] if place else []
        blocks += [f"**{_escape(table.title)}**\n\n{_table(table)}" for table in summary.tables]
        blocks += [_escape(line) for line in numbered(summary)]
    return "\n\n".join(blocks) + "\n"


def numbered(summary: Summary) -> list[str]:
    """The section's notes behind their marks, then its lines."""
    return [*(f"[{mark}] {note}" for mark, note in summary.notes.items()), *summary.lines]


def _table(table: Table) -> str:
    lines = (
        ["method", *(_escape(f"{c.group} {c.label}".strip()) for c in table.columns)],
        ["---", *["---:"] * len(table.columns)],
    )
    rows = [[_escape(heading.text) + _marks(heading), *map(_figure, cells)] for heading, cells in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *rows])


def _figure(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return text + (f" ({cell.below})" if cell.below else "") + _marks(cell)


def _marks(cell: Cell) -> str:
    return f" [{','.join(cell.notes)}]" if cell.notes else ""


def _escape(text: str) -> str:
    """`text` as Markdown would show it, on one line of a table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")

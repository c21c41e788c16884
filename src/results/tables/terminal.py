"""Tables on a terminal, however narrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from src.results.tables.markdown import numbered
from src.results.tables.model import Cell, Summary, Table

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
        drawn.add_row(Text(heading.text + _marks(heading)), *map(_text, cells))
    return drawn


def _text(cell: Cell) -> Text:
    text = Text(cell.text, "bold" if cell.best else "") + Text(_marks(cell))
    return text + Text(f"\n{cell.below}", "dim") if cell.below else text


def _marks(cell: Cell) -> str:
    return f" [{','.join(cell.notes)}]" if cell.notes else ""

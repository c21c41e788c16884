"""How far a long piece of work is: a bar on a terminal, a line a minute in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
Advance = Callable[[int], None]

# Seconds between two lines of a log.
LINE_SECONDS = 60.0


@contextmanager
def progress(description: str, total: int, unit: str = "images", start: int = 0) -> Iterator[Advance]:
    """Around work on `total` things, `start` of which are done: yields what is told how many more are.

    On a terminal standard error has a bar with n of N, the rate and the time left, which is gone in the end. Elsewhere
    it has a line a minute, and none of what takes less. Nothing is shown for no things at all.
    """
    if start >= total:
        yield lambda count: None
    elif sys.stderr.isatty():
        with _bar(description, total, unit, start) as advance:
            yield advance
    else:
        yield _Lines(description, total, unit, start).advance


def track(items: Iterable[T], description: str, total: int, unit: str = "images") -> Iterator[T]:
    """The items, with `progress` over them."""
    with progress(description, total, unit) as advance:
        for item in items:
            yield item
            advance(1)


def left_of(seconds: float) -> str:
    """A time in the largest units that say enough.

    >>> left_of(45), left_of(100), left_of(7500)
    ('45 s', '2 min', '2 h 5 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def _bar(description: str, total: int, unit: str, start: int) -> Iterator[Advance]:
    # For this alone: a server and a search that show no bar do without.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.1f} {unit}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(" of "), Rate(), TimeLeft())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, completed=start)
        yield lambda count: bar.advance(task, count)


class _Lines:
    """Counts, and prints how far it is once a minute; threads may share it."""

    def __init__(self, description: str, total: int, unit: str, start: int) -> None:
        self.description, self.total, self.unit, self.start = description, total, unit, start
        self.done = start
        self.begun = self.printed = time.monotonic()
        self.lock = threading.Lock()

    def advance(self, count: int) -> None:
        with self.lock:
            self.done += count
            now = time.monotonic()
            if now - self.printed >= LINE_SECONDS and self.done < self.total:
                self.printed = now
                rate = (self.done - self.start) / (now - self.begun)
                left = left_of((self.total - self.done) / rate) if rate else "?"
                done = f"{self.description}: {self.done:,} of {self.total:,} {self.unit}"
                print(f"{done}, {rate:,.1f}/s, {left} left", file=sys.stderr, flush=True)

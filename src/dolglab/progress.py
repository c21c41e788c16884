"""Progress of long work: a bar on a terminal, a line per minute in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
Advance = Callable[[int], None]

# Seconds between two lines in a log.
LINE_SECONDS = 60.0


@contextmanager
def progress(description: str, total: int, unit: str = "images", start: int = 0) -> Iterator[Advance]:
    """Show progress of work on `total` items, `start` of which are done.

    Yields a function to call with the number of items that were finished since the last call. On a terminal, standard
    error shows a bar with n of N, the rate and the time left, which disappears at the end. Otherwise it gets a line per
    minute, so none for shorter work. Nothing is shown if there is nothing to do.
    """
    if start >= total:
        yield lambda count: None
    elif sys.stderr.isatty():
        with _bar(description, total, unit, start) as advance:
            yield advance
    else:
        yield _Lines(description, total, unit, start).advance


def track(items: Iterable[T], description: str, total: int, unit: str = "images") -> Iterator[T]:
    """The items, with their `progress`."""
    with progress(description, total, unit) as advance:
        for item in items:
            yield item
            advance(1)


def left_of(seconds: float) -> str:
    """A duration for people, in seconds, minutes or hours.

    >>> left_of(45), left_of(100), left_of(7500)
    ('45 s', '2 min', '2 h 5 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def _bar(description: str, total: int, unit: str, start: int) -> Iterator[Advance]:
    # Imported here because a server and a search, which show no bar, do not need it.
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
    """Counts finished items and prints a line once a minute; threads may share it."""

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

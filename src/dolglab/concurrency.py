"""Work of several threads, a little ahead of whoever takes what they make."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process
from typing import TypeVar

from rich.progress import track

from dolglab.errors import UserError

J = TypeVar("J")
R = TypeVar("R")


def checked_workers(workers: int | None) -> int:
    """So many, or all cores for None. Raises UserError for what is no whole number above 0."""
    if workers is None:
        return os.cpu_count() or 1
    if not isinstance(workers, int) or workers < 1:
        raise UserError(f"workers must be a whole number above 0, not {workers}")
    return workers


def over_processes(
    work: Callable[[J], R], jobs: Sequence[J], workers: int, what: str, settle: Callable[[], None] | None = None
) -> Iterator[R]:
    """The results of `work`, a function at the top of a module, in the order of the jobs.

    With a bar called `what` on a terminal; one worker is this process itself, and there are no more than jobs. `settle`
    is called in each worker first. Raises UserError where a worker was killed.
    """
    bar = partial(track, description=what, total=len(jobs), transient=True, disable=not sys.stdout.isatty())
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from bar(map(work, jobs))
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(settle,))
    try:
        yield from bar(pool.map(work, jobs))
    except BrokenProcessPool:
        raise UserError(
            f"{what}: a worker was killed, perhaps for want of memory: the same command goes on, take fewer workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(settle: Callable[[], None] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if settle is not None:
        settle()


def _end_with_parent() -> None:
    """A worker whose main process was killed would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


J = TypeVar("J")
R = TypeVar("R")


def ahead(
    work: Callable[[J], R], jobs: Iterable[J], threads: int, most: int, begin: Callable[[], None] | None = None
) -> Iterator[tuple[J, R]]:
    """Each job with what `work` made of it, in their order.

    Args:
        jobs: asked for one by one, in the caller's thread.
        threads: that work.
        most: jobs that are under way, or done and not yet taken.
        begin: called in each thread first.
    """
    with ThreadPoolExecutor(threads, initializer=begin or (lambda: None)) as pool:
        running: deque[tuple[J, Future[R]]] = deque()
        try:
            for job in jobs:
                running.append((job, pool.submit(work, job)))
                if len(running) > most:
                    yield _first(running)
            while running:
                yield _first(running)
        finally:
            for _, future in running:
                future.cancel()


def _first(running: deque[tuple[J, Future[R]]]) -> tuple[J, R]:
    job, future = running.popleft()
    return job, future.result()

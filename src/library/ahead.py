"""Work of several threads, a little ahead of whoever takes what they make."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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

"""Distribute work over processes (`process_map`) or threads (`prefetch_map`); results are in the order of the jobs."""

from __future__ import annotations

import math
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TypeVar

from dolglab.errors import UserError
from dolglab.progress import track

Job = TypeVar("Job")
Result = TypeVar("Result")


def resolve_workers(workers: int | None) -> int:
    """`workers`, or the number of cores for None. Raises UserError unless it is a whole number above 0."""
    if workers is None:
        return os.cpu_count() or 1
    if not isinstance(workers, int) or workers < 1:
        raise UserError(f"workers must be a whole number above 0, not {workers}")
    return workers


def available_cores() -> int:
    """The number of cores that this process may use, or OMP_NUM_THREADS if it is set."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdecimal() and int(stated):
        return int(stated)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory(root: Path = Path("/")) -> float:
    """Bytes that this process can still allocate, by the limits of machine and container; infinite if none is known.

    Args:
        root: the folder that contains Linux's `proc` and `sys`.
    """
    found = []
    with suppress(OSError):
        found += [1024 * int(kb) for kb in re.findall(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())]
    # A value that is not a number means no limit.
    with suppress(OSError, ValueError):
        limit, taken = (int((root / "sys/fs/cgroup" / name).read_text()) for name in ("memory.max", "memory.current"))
        # Memory used for cached files can be reclaimed.
        files = re.findall(r"active_file (\d+)", (root / "sys/fs/cgroup/memory.stat").read_text())
        found.append(max(0, limit - taken + sum(map(int, files))))
    return min(found, default=math.inf)


def process_map(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    description: str,
    initializer: Callable[[], None] | None = None,
    unit: str = "jobs",
) -> Iterator[Result]:
    """The results of `work`, a function at the top of a module, with `progress`.

    Args:
        workers: number of processes, at most one per job; with one, this process itself does the work.
        description: label of the progress.
        initializer: called first in each process.
        unit: what the jobs are, in the plural.

    Raises UserError if a worker was killed.
    """
    shown = partial(track, description=description, total=len(jobs), unit=unit)
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from shown(map(work, jobs))
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker, initargs=(initializer,))
    try:
        yield from shown(pool.map(work, jobs))
    except BrokenProcessPool:
        raise UserError(
            f"{description}: a worker was killed, perhaps because memory ran out: the same command continues, use "
            "fewer workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(initializer: Callable[[], None] | None) -> None:
    threading.Thread(target=exit_with_parent, daemon=True).start()
    if initializer is not None:
        initializer()


def exit_with_parent() -> None:
    """For a thread of a worker: end the worker when its parent ends. Otherwise it would continue, or wait forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def prefetch_map(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    threads: int,
    ahead: int,
    initializer: Callable[[], None] | None = None,
) -> Generator[tuple[Job, Result]]:
    """Each job with its result, computed in threads a little ahead of the consumer.

    >>> list(prefetch_map(len, ["a", "bc"], threads=2, ahead=1))
    [('a', 1), ('bc', 2)]

    Args:
        jobs: consumed one by one, in the caller's thread.
        threads: number of working threads.
        ahead: number of jobs that are in progress, or done and not yet consumed.
        initializer: called first in each thread.
    """
    with ThreadPoolExecutor(threads, initializer=initializer) as pool:
        pending: deque[tuple[Job, Future[Result]]] = deque()
        try:
            for job in jobs:
                pending.append((job, pool.submit(work, job)))
                if len(pending) > ahead:
                    job, future = pending.popleft()
                    yield job, future.result()
            while pending:
                job, future = pending.popleft()
                yield job, future.result()
        finally:
            for _, future in pending:
                future.cancel()

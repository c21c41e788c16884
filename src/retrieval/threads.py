"""Work on many parts by as many threads as torch has, each with a core of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Part], Result], parts: Iterable[Part]) -> Generator[Result]:
    """The results of the parts in their order, of which few are there at a time.

    Small products and element by element work leave most cores idle when one call after another is spread over them;
    here each thread computes its own part by itself.
    """
    threads = torch.get_num_threads()
    left = iter(parts)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting: deque[Future[Result]] = deque(pool.submit(work, part) for part in islice(left, threads + 1))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, part) for part in islice(left, 1))
                yield result
    finally:
        # MKL knows one number for all threads.
        torch.set_num_threads(threads)

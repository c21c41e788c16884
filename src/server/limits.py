"""Limits: how many wait, how often one client may ask, how large a photo may be."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastapi import HTTPException

from src.library.query import Header, TooManyPixelsError, photo_header

T = TypeVar("T")

# Clients whose rate is remembered.
CLIENTS = 10_000


class Places:
    """So many may be within: `with places:` raises HTTPException 503 for one more.

    Args:
        what: they are, for the message.
        count: of them.
    """

    def __init__(self, what: str, count: int) -> None:
        self._what = what
        self._free = threading.Semaphore(count)

    def __enter__(self) -> None:
        if not self._free.acquire(blocking=False):
            raise HTTPException(503, f"too many {self._what} at once: try again in a moment", {"Retry-After": "2"})

    def __exit__(self, *error: object) -> None:
        self._free.release()


class Worker:
    """Does what it is given, one after another, in a thread of its own.

    The network always runs in one thread: every thread that it ran in would keep threads and memory of its own.

    Args:
        what: it does, for the message.
        waiting: how much may wait.
    """

    def __init__(self, what: str, waiting: int) -> None:
        self._places = Places(what, waiting + 1)
        self._thread = ThreadPoolExecutor(1, what)

    def __call__(self, work: Callable[[], T]) -> T:
        """What `work` gives. Raises what that raises, and HTTPException 503 where too much waits."""
        with self._places:
            return self._thread.submit(work).result()


class Rate:
    """A token bucket for each client: `per_minute` come at once, and come back evenly within a minute."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, cost: float = 1.0) -> float:
        """Take `cost` from a client's bucket; seconds until there is so much, 0 where it was taken."""
        now = self._clock()
        left, then = self._buckets.get(client, (self._most, now))
        left = min(self._most, left + (now - then) * self._most / 60)
        short = max(0.0, cost - left)
        self._buckets[client] = (left if short else left - cost, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return short * 60 / self._most


def check_header(data: bytes, max_pixels: int) -> Header:
    """What an encoded photo says of itself, before a pixel is decoded. Raises InputError, and HTTPException 413."""
    try:
        header = photo_header(data)
    except TooManyPixelsError:
        raise HTTPException(413, f"the photo has more than {max_pixels / 1e6:g} megapixels: make it smaller") from None
    pixels = header.width * header.height
    if pixels > max_pixels:
        raise HTTPException(
            413, f"the photo has {pixels / 1e6:.1f} megapixels, more than {max_pixels / 1e6:g}: make it smaller"
        )
    return header

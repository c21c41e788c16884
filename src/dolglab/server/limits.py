"""How much one client may take of a server, so that something is always left for the others.

A client is an address: whoever comes through the same proxy is the same client.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from fastapi import HTTPException

# Whose request is being answered; set for each by the middleware, and seen in the threads that work for it.
CLIENT: ContextVar[str] = ContextVar("client", default="")
# Clients whose rate is remembered.
MAX_CLIENTS = 10_000


@dataclass(frozen=True)
class Limits:
    """What a client's request may take. Times are in seconds.

    Attributes:
        head: until its line and headers are here, from when the client connected or was answered.
        silence: without a byte in the middle of its body; who sends byte by byte is never silent.
        whole: until all of it is here.
        answer: in which a client that is sent something must read on, see `connections.SLOWEST`.
        refused: that the refusal of one request too many, or one wrong token, is held back.
        quick: of decoding, after which a photo counts as slow and others are decoded beside it.
        decoding: of one photo, after which it is given up.
        requests: that are worked on at the same time.
        connections: that are open at the same time; None for half of the process's file descriptors, 500 at most.
    """

    head: float = 20.0
    silence: float = 20.0
    whole: float = 60.0
    answer: float = 20.0
    refused: float = 1.0
    quick: float = 0.5
    decoding: float = 20.0
    # No more than Starlette has threads: none waits for one.
    requests: int = 40
    connections: int | None = None


class FairLimiter:
    """So much of something at once, and half of it for one client: a client that takes all it can get stops no other.

    >>> limiter = FairLimiter("searches", 4)
    >>> limiter.acquire()
    >>> with limiter:
    ...     limiter.acquire()
    Traceback (most recent call last):
    fastapi.exceptions.HTTPException: 503: too many searches at once: try again in a moment

    Args:
        what: is taken, for the message.
        total: of it; of 1, one client takes all.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._share = max(1, total // 2)
        self._taken = Counter[str]()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """How much of it is taken."""
        return self._taken.total()

    def acquire(self, amount: int = 1) -> None:
        """Take an amount for `CLIENT`. Raises HTTPException 503 where there is not so much for it."""
        client = CLIENT.get()
        with self._lock:
            if self._taken.total() + amount > self._total or self._taken[client] + amount > self._share:
                raise HTTPException(503, f"too many {self._what} at once: try again in a moment", {"Retry-After": "2"})
            self._taken[client] += amount

    def release(self, amount: int = 1) -> None:
        """Give back what `CLIENT` took."""
        client = CLIENT.get()
        with self._lock:
            self._taken[client] -= amount
            if not self._taken[client]:
                del self._taken[client]

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class RateLimiter:
    """A token bucket for each client: `per_minute` come at once, and come back evenly within a minute."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = per_minute
        self._clock = clock
        # Whoever asked last comes last.
        self._buckets: dict[str, tuple[float, float]] = {}

    def acquire(self, client: str, cost: float = 1.0) -> float:
        """Take `cost` from a client's bucket; returns seconds until there is so much, 0 where it was taken."""
        now = self._clock()
        level, then = self._buckets.pop(client, (self._capacity, now))
        level = min(self._capacity, level + (now - then) * self._capacity / 60)
        missing = max(0.0, cost - level)
        self._buckets[client] = (level if missing else level - cost, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.pop(next(iter(self._buckets)))
        return missing * 60 / self._capacity

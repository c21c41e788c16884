"""Limits on the share of a server that one client may use.

Clients are identified by address: all users behind one proxy count as one client.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from fastapi import HTTPException

# The client of the current request. The middleware sets it; the threads that work on the request inherit it.
CLIENT: ContextVar[str] = ContextVar("client", default="")
# Maximum number of clients whose rate is tracked.
MAX_CLIENTS = 10_000


@dataclass(frozen=True)
class Limits:
    """Limits of requests. Times are in seconds.

    Attributes:
        head: to receive the request line and headers, from the connection or the previous response on.
        silence: maximum pause between two parts of a body.
        whole: to receive the complete request.
        answer: within which a client must continue to read a response, see `connections.SLOWEST`.
        refused: delay of a response to a request beyond the rate limit or with a wrong token.
        quick: of decoding, after which a photo counts as slow and other photos are decoded beside it.
        decoding: of one photo, after which decoding is aborted.
        requests: processed at the same time.
        connections: open at the same time; None for half of the process's file descriptors, at most 500.
    """

    head: float = 20.0
    silence: float = 20.0
    whole: float = 60.0
    answer: float = 20.0
    refused: float = 1.0
    quick: float = 0.5
    decoding: float = 20.0
    # At most the number of Starlette's threads, so that no request waits for one.
    requests: int = 40
    connections: int | None = None


class FairLimiter:
    """Limits the amount of a resource in use; one client gets at most half, so that it cannot block the others.

    >>> limiter = FairLimiter("searches", 4)
    >>> limiter.acquire()
    >>> with limiter:
    ...     limiter.acquire()
    Traceback (most recent call last):
    fastapi.exceptions.HTTPException: 503: too many searches at once: try again in a moment

    Args:
        what: name of the resource, for the error message.
        total: amount available. If it is 1, one client may take it all.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._share = max(1, total // 2)
        self._taken = Counter[str]()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """The amount in use."""
        return self._taken.total()

    def acquire(self, amount: int = 1) -> None:
        """Take an amount for `CLIENT`. Raises HTTPException 503 if it is not available."""
        client = CLIENT.get()
        with self._lock:
            if self._taken.total() + amount > self._total or self._taken[client] + amount > self._share:
                raise HTTPException(503, f"too many {self._what} at once: try again in a moment", {"Retry-After": "2"})
            self._taken[client] += amount

    def release(self, amount: int = 1) -> None:
        """Return an amount that `CLIENT` took."""
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
    """A token bucket per client, which holds `per_minute` tokens and refills evenly within a minute."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = per_minute
        self._clock = clock
        # Sorted by the time of the last request.
        self._buckets: dict[str, tuple[float, float]] = {}

    def acquire(self, client: str, cost: float = 1.0) -> float:
        """Take `cost` from a client's bucket; returns 0, or the seconds to wait if the bucket holds too little."""
        now = self._clock()
        level, then = self._buckets.pop(client, (self._capacity, now))
        level = min(self._capacity, level + (now - then) * self._capacity / 60)
        missing = max(0.0, cost - level)
        self._buckets[client] = (level if missing else level - cost, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.pop(next(iter(self._buckets)))
        return missing * 60 / self._capacity

"""uvicorn's connections, bounded: in number, and in how long a client may take to ask and to read.

What uvicorn itself limits is only how long a connection without a request is kept.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import Counter
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dolglab.server.limits import Limits

# Connections that the system queues, and of those how many are accepted before others are served.
BACKLOG, ACCEPTED_AT_ONCE = 512, 8
# Connections of a process that may open any number of files.
MAX_CONNECTIONS = 500
# Seconds within which whoever has connected, or was answered, asks.
GRACE = 1.0
# Bytes of a request's head.
HEAD = 1 << 14
# Pieces that a body may come in, and bytes for which there may be one more.
PIECES, BYTES_A_PIECE = 200, 256
# Bytes a second that a client reads at least.
SLOWEST = 1000


def connection_limit() -> int:
    """Half of the file descriptors that this process may have: the library and its photos want some too."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if limit == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, max(1, limit // 2))


class ConnectionLimiter:
    """The open connections: for one too many another is closed, so that who connects is always heard.

    It is one of the client that has most of them, and of these the one that has waited longest for its client: without
    a request, if there is one; else in the middle of something; else whichever.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Oldest first.
        self._open: dict[BoundedConnection, None] = {}

    def add(self, connection: BoundedConnection) -> None:
        """Count a new connection."""
        if len(self._open) >= self._limit:
            clients = Counter(each.address for each in self._open)
            closed = max(self._open, key=lambda each: (clients[each.address], *each.dispensability))
            self.discard(closed)
            closed.transport.abort()
        self._open[connection] = None

    def discard(self, connection: BoundedConnection) -> None:
        """Forget a connection that has ended."""
        self._open.pop(connection, None)


class TinyPiecesError(Exception):
    """A body comes in too many pieces for its bytes."""


class BodyCounter(h11.Connection):
    """h11's side of a connection. Raises TinyPiecesError: a chunk of one byte takes as long to parse as a large one."""

    _pieces = _bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """What has come, see h11."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > PIECES + self._bytes // BYTES_A_PIECE:
                raise TinyPiecesError
        return event


class BoundedConnection(H11Protocol):
    """uvicorn's HTTP/1.1, cut off where the client neither asks nor reads in time, see `Limits`, or sends tiny pieces.

    The timer runs while it is the client's turn: to send the head of its next request, from when it connected or was
    answered, whatever else it sends; or to read, from when more waits to be sent than asyncio takes.
    """

    def __init__(self, *args: Any, limits: Limits, limiter: ConnectionLimiter, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = BodyCounter(h11.SERVER, HEAD)
        self._limits = limits
        self._limiter = limiter
        self._timer: asyncio.TimerHandle | None = None
        # When it was last started.
        self._turn = 0.0

    @property
    def address(self) -> str:
        """The client's."""
        return self.client[0] if self.client else "unknown"

    @property
    def dispensability(self) -> tuple[int, float]:
        """2 after `GRACE` without a request, 1 where it is the client's turn otherwise, 0 where the server works.

        Then for how many seconds that has been so.
        """
        waiting = self.loop.time() - self._turn
        if self.cycle is None or self.cycle.response_complete:
            return (2 if waiting > GRACE else 1), waiting
        return int(self.cycle.more_body or self.cycle.response_started), waiting

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Called by asyncio: a client has connected."""
        super().connection_made(transport)
        self._start_timer(self._limits.head)
        self._limiter.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: the connection has ended."""
        self._stop_timer()
        self._limiter.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: something has come."""
        # A head is not parsed before all of it is here, or it is too large.
        for start in range(0, len(data), HEAD):
            if not self.transport.is_closing():
                super().data_received(data[start : start + HEAD])

    def handle_events(self) -> None:
        """Called by uvicorn: something has come, or what came before can be looked at."""
        before = self.cycle
        try:
            super().handle_events()
        except TinyPiecesError:
            self.transport.abort()
        # The head of a request is here. Who has not read the last answer is waited for no longer than before.
        if self.cycle is not before and not self.flow.write_paused:
            self._stop_timer()

    def on_response_complete(self) -> None:
        """Called by uvicorn: an answer is written, though perhaps not yet sent."""
        self._start_timer(self._limits.head)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Called by asyncio: the client does not read as fast as is written."""
        super().pause_writing()
        self._start_timer(self._limits.answer)

    def resume_writing(self) -> None:
        """Called by asyncio: the client has read."""
        super().resume_writing()
        if not self.cycle.response_complete:
            self._stop_timer()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._turn = self.loop.time()
        unread = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(seconds, self._time_is_up, seconds, unread)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _time_is_up(self, seconds: float, unread: int) -> None:
        left = self.transport.get_write_buffer_size()
        if 0 < left <= unread - SLOWEST * seconds:
            self._start_timer(self._limits.answer)
        else:
            # To close it would be to wait until the client has read everything.
            self.transport.abort()


class BoundedServer(uvicorn.Server):
    """uvicorn, with as many connections waiting as the system queues."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn: listen."""
        await super().startup(sockets)
        # asyncio accepts as many at once as it lets wait (`ACCEPTED_AT_ONCE`), before one too many can be closed.
        for listener in sockets or ():
            listener.listen(BACKLOG)

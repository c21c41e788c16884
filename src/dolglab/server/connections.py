"""uvicorn's connections with limits on their number and on the time that clients take to send and to read.

uvicorn itself only limits the time that an idle connection is kept open.
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

# Connections that the system queues, and connections accepted in one step of the event loop.
BACKLOG, ACCEPTED_AT_ONCE = 512, 8
# Maximum connections of a process without a limit on open files.
MAX_CONNECTIONS = 500
# Seconds within which a client normally sends a request after connecting or after a response.
GRACE = 1.0
# Maximum bytes of a request's head.
HEAD = 1 << 14
# Pieces that a body may arrive in, plus one for each so many bytes.
PIECES, BYTES_A_PIECE = 200, 256
# Minimum bytes per second that a client must read.
SLOWEST = 1000


def connection_limit() -> int:
    """Half of this process's file descriptors, since the library and its photos need some too."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if limit == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, max(1, limit // 2))


class ConnectionLimiter:
    """Limits the number of open connections by closing an old one for each new one beyond the limit.

    It closes a connection of the client with the most connections: the one that has waited longest for its client,
    preferably without a request, otherwise in the middle of one, otherwise any.
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
        """Stop counting a connection."""
        self._open.pop(connection, None)


class TinyPiecesError(Exception):
    """A body arrives in too many pieces for its size."""


class BodyCounter(h11.Connection):
    """h11's connection with a limit on pieces, since parsing a chunk of one byte costs as much as a large one.

    Raises TinyPiecesError.
    """

    _pieces = _bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event, see h11."""
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
    """uvicorn's HTTP/1.1 connection, closed when the client does not send or read in time, or sends tiny pieces.

    The timer runs while the server waits for the client: for the head of the next request, from the connection or the
    previous response on; or for the client to read, while asyncio's write buffer is full. See `Limits`.
    """

    def __init__(self, *args: Any, limits: Limits, limiter: ConnectionLimiter, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = BodyCounter(h11.SERVER, HEAD)
        self._limits = limits
        self._limiter = limiter
        self._timer: asyncio.TimerHandle | None = None
        # The time of the last start of the timer.
        self._turn = 0.0

    @property
    def address(self) -> str:
        """The address of the client."""
        return self.client[0] if self.client else "unknown"

    @property
    def dispensability(self) -> tuple[int, float]:
        """Whether the connection can be closed, and for how many seconds it has been in this state.

        2: idle for more than `GRACE`; 1: otherwise waiting for the client; 0: the server is working on a request.
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
        """Called by asyncio: data has arrived."""
        # In portions of a head, because h11 checks the size of a head only after adding all data to its buffer.
        for start in range(0, len(data), HEAD):
            if not self.transport.is_closing():
                super().data_received(data[start : start + HEAD])

    def handle_events(self) -> None:
        """Called by uvicorn: new or buffered data can be parsed."""
        before = self.cycle
        try:
            super().handle_events()
        except TinyPiecesError:
            self.transport.abort()
        # The head of a request is complete. A client that has not read the last response gets no more time for that.
        if self.cycle is not before and not self.flow.write_paused:
            self._stop_timer()

    def on_response_complete(self) -> None:
        """Called by uvicorn: a response has been written, but perhaps not yet sent."""
        self._start_timer(self._limits.head)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Called by asyncio: the write buffer is full, since the client reads too slowly."""
        super().pause_writing()
        self._start_timer(self._limits.answer)

    def resume_writing(self) -> None:
        """Called by asyncio: the write buffer has space again."""
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
            # Closing instead would wait until the client has read everything.
            self.transport.abort()


class BoundedServer(uvicorn.Server):
    """uvicorn's server with a longer queue of connections than it accepts at once."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn: start to listen."""
        await super().startup(sockets)
        # asyncio accepts a full backlog in one step, before superfluous connections can be closed. uvicorn therefore
        # gets the small `ACCEPTED_AT_ONCE` as backlog, and the queue is lengthened here.
        for listener in sockets or ():
            listener.listen(BACKLOG)

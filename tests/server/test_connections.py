"""Connections over real sockets: timeouts of clients, and the limit on open connections."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial

import pytest
import uvicorn

from dolglab.server.app import bind
from dolglab.server.connections import ACCEPTED_AT_ONCE, BoundedConnection, BoundedServer, ConnectionLimiter
from dolglab.server.limits import Limits

# The timeout of a socket in seconds, and more bytes than the buffers of a socket hold.
PATIENCE, LARGE = 30.0, 50_000_000

Connect = Callable[..., socket.socket]
Serve = Callable[..., Connect]


class Application:
    """An application that responds at once, with a large body (/large), or on a signal (/slow)."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go = threading.Event()
        self.finished = threading.Event()

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        self.asked.set()
        size = LARGE if scope["path"] == "/large" else 2
        while scope["path"] == "/slow" and not self.go.is_set():
            await asyncio.sleep(0.01)
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, size, 1 << 16):
            piece = b"a" * min(1 << 16, size - start)
            await send({"type": "http.response.body", "body": piece, "more_body": start + len(piece) < size})
        self.finished.set()


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def serve(application: Application) -> Iterator[Serve]:
    """Starts a server with limits; returns a function that connects to it from an address."""
    with ExitStack() as stack:

        def started(connections: int = 100, **seconds: float) -> Connect:
            limits = Limits(**({"head": PATIENCE, "answer": PATIENCE} | seconds))
            connection = partial(BoundedConnection, limits=limits, limiter=ConnectionLimiter(connections))
            config = uvicorn.Config(
                application, http=connection, lifespan="off", log_config=None, backlog=ACCEPTED_AT_ONCE
            )
            server = BoundedServer(config)
            listener = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()

            def stop() -> None:
                server.should_exit = server.force_exit = True
                thread.join()

            stack.callback(stop)

            def connect(source: str = "127.0.0.1") -> socket.socket:
                made = socket.create_connection(listener.getsockname(), PATIENCE, (source, 0))
                return stack.enter_context(closing(made))

            return connect

        yield started


def ask(connection: socket.socket, path: str = "/") -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def is_answered(connection: socket.socket) -> bool:
    return connection.recv(1000).startswith(b"HTTP/1.1 200")


def is_answered_whole(connection: socket.socket) -> bool:
    """Whether the connection accepts another request."""
    read = b""
    while not read.endswith(b"\r\n\r\naa"):
        if not (part := connection.recv(1000)):
            return False
        read += part
    return True


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed the connection; blocks until data or the end arrives."""
    try:
        return not connection.recv(1)
    except ConnectionResetError:
        return True


def goes_on_until_cut_off(connection: socket.socket, piece: bytes) -> None:
    """Send until the connection breaks."""
    with suppress(BrokenPipeError, ConnectionResetError):
        while True:
            connection.sendall(piece)


def test_a_client_that_sends_nothing_is_disconnected(serve: Serve) -> None:
    connect = serve(head=0.1)
    assert is_closed(connect())
    asked = connect()
    ask(asked)
    assert is_answered(asked)


def test_an_endless_header_is_disconnected(serve: Serve) -> None:
    connection = serve(head=0.1)()
    connection.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
    goes_on_until_cut_off(connection, b"a")


def test_a_client_that_keeps_sending_after_the_response_is_disconnected(serve: Serve) -> None:
    connection = serve(head=0.1)()
    connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert is_answered(connection)
    goes_on_until_cut_off(connection, b"1\r\na\r\n")


def test_a_body_in_tiny_pieces_is_disconnected_and_one_in_chunks_is_not(application: Application, serve: Serve) -> None:
    connect = serve()
    chunked = b"POST /slow HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection = connect()
    connection.sendall(chunked)
    goes_on_until_cut_off(connection, b"1\r\na\r\n")
    application.go.set()
    connection = connect()
    connection.sendall(chunked + b"400\r\n%s\r\n" % bytes(1024) * 1000 + b"0\r\n\r\n")
    assert is_answered(connection)


def test_a_head_that_is_too_large_is_refused(serve: Serve) -> None:
    connection = serve()()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 10_000 + b"\r\n")
    # A client that reads before it has sent everything gets the error.
    with suppress(ConnectionResetError):
        assert b" 400 " in connection.recv(1000).partition(b"\r\n")[0]


def test_a_connection_just_answered_is_not_closed_for_another(serve: Serve) -> None:
    connect = serve(connections=3)
    asking, idle, another = connect(), connect(), connect()
    for connection in (asking, another, asking):
        ask(connection)
        assert is_answered_whole(connection)
    connect()
    assert is_closed(idle)
    ask(asking)
    assert is_answered_whole(asking)


@pytest.mark.parametrize("asked", [1, 20])
def test_a_client_that_does_not_read_is_disconnected(application: Application, serve: Serve, asked: int) -> None:
    connection = serve(answer=0.1)()
    for _ in range(asked):
        ask(connection, "/large")
    assert application.finished.wait(PATIENCE)
    # Only the data in the system's buffers still arrives.
    read = 0
    with suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            read += len(piece)
    assert read < LARGE


def test_a_response_behind_an_unread_one_does_not_block_the_server(serve: Serve) -> None:
    connection = serve(answer=0.1)()
    for path in ("/large", "/"):
        ask(connection, path)
    goes_on_until_cut_off(connection, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_a_client_that_reads_gets_the_whole_response(serve: Serve) -> None:
    connection = serve()()
    for _ in range(2):
        ask(connection, "/large")
        head, _, body = connection.recv(1000).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        read = len(body)
        while read < LARGE:
            read += len(connection.recv(1 << 20))
        assert read == LARGE


def test_a_connection_beyond_the_limit_closes_the_oldest_idle_one(application: Application, serve: Serve) -> None:
    connect = serve(connections=4)
    working = connect()
    ask(working, "/slow")
    assert application.asked.wait(PATIENCE)
    crowd = [connect() for _ in range(20)]
    late = connect()
    ask(late)
    assert is_answered(late)
    assert all(map(is_closed, crowd[:-2]))
    application.go.set()
    assert is_answered(working)


def test_the_client_with_the_most_connections_loses_one(serve: Serve) -> None:
    connect = serve(connections=4)
    try:
        other = connect("127.0.0.2")
    except OSError:
        pytest.skip("this system has one loopback address")
    crowd = [connect() for _ in range(20)]
    assert all(map(is_closed, crowd[:-3]))
    ask(other)
    assert is_answered(other)


def test_a_response_in_parts_is_sent_without_delay() -> None:
    async def connected() -> int:
        options = asyncio.get_running_loop().create_future()

        def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            options.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with closing(bind("127.0.0.1", 0)) as listener:
            async with await asyncio.start_server(note, sock=listener):
                with socket.create_connection(listener.getsockname(), PATIENCE):
                    return await options

    assert asyncio.run(connected()) != 0

"""A web server on loopback with typical faults."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server:
    """Files by path, and for each path the faults of its next answers, in order.

    Faults: `cut` ends the connection in the middle; a number is the status; `whole` ignores the range; `garbled` sends
    wrong bytes; `blind` does not look at If-Range; `silent` leaves ETag and length out.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str | int]] = defaultdict(list)
        self.asked: list[tuple[str, str]] = []
        self.headers: dict[str, str] = {}
        self.url = ""

    def add(self, path: str, data: bytes, md5: str | None = None) -> None:
        self.files[path] = data
        if md5:
            self.files[md5] = f"{hashlib.md5(data).hexdigest()}  {path.rsplit('/')[-1]}\n".encode()

    def ranges(self, path: str) -> list[str]:
        """The requested ranges of a file."""
        return [found for name, found in self.asked if name == path]


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            data = state.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.asked.append((self.path, asked))
            fault = state.faults[self.path].pop(0) if state.faults[self.path] else None
            data = state.files.get(self.path)
            if isinstance(fault, int) or data is None:
                self.send_response(fault if isinstance(fault, int) else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            etag = f'"{hashlib.md5(data).hexdigest()}"'
            start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
            if fault == "whole" or (fault != "blind" and self.headers.get("If-Range", etag) != etag):
                start = 0
            if start >= len(data) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = data[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            if fault == "silent":
                self.send_header("Connection", "close")
            else:
                self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(
                body[: len(body) // 2] if fault == "cut" else bytes(len(body)) if fault == "garbled" else body
            )
            if fault in ("cut", "silent"):
                self.close_connection = True

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()

"""What every request passes before a route sees it: who may ask, from where, how often; and what every answer says."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import math
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dolglab.library.photos import Header, TooManyPixelsError, photo_header
from dolglab.server.errors import told


@dataclass(frozen=True)
class Settings:
    """What a server allows.

    Attributes:
        token: asked of everyone; None asks nobody.
        max_upload: bytes of a photo that is sent.
        max_pixels: of such a photo.
        rate: requests a minute of one client that make the server work; the same number may come at once.
        read_only: photos are neither added nor removed.
        names: host names it is reached by, besides localhost, this machine's own and addresses.
    """

    token: str | None = None
    max_upload: int = 20_000_000
    max_pixels: int = 50_000_000
    rate: float = 60.0
    read_only: bool = False
    names: frozenset[str] = frozenset()


# Whoever asks could make a counter of every word else.
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Metrics:
    """Requests by route and status, how long they took, and how many photos can be found.

    Args:
        photos: says how many.
    """

    def __init__(self, photos: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("dolg_requests", "Answered requests.", labels, registry=self._registry)
        self._seconds = Histogram(
            "dolg_request_seconds", "Seconds from a request to its answer.", ("route",), registry=self._registry
        )
        self._running = Gauge("dolg_requests_running", "Requests being answered.", registry=self._registry)
        found = Gauge("dolg_library_photos", "Photos that can be found.", registry=self._registry)
        found.set_function(photos)

    def began(self) -> None:
        """Count a request that came."""
        self._running.inc()

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one that was answered."""
        self._running.dec()
        self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)


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
    """What an encoded photo says of itself, before a pixel is decoded. Raises UserError, and HTTPException 413."""
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


API, OPEN = "/api/", "/api/health"
SAFE = ("GET", "HEAD", "OPTIONS")
# Requests that are answered at the same time; those beyond are sent away.
RUNNING = 64
# A picture counts as this much of a search: a page of answers shows many.
PICTURE = 0.05
# Seconds that a client may be silent in the middle of a request.
PATIENCE = 20.0
# Seconds within which a request is to be here whole: who sends it byte by byte is never silent.
WHOLE = 60.0
# Bytes of a form besides its photo.
FIELDS = 1_000_000
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Middleware that turns away what must not come in.

    - A Host that is a name of somebody else's: a page elsewhere that had its own name lead here (DNS rebinding).
    - A change that a page from elsewhere asks for. There are no cookies; without a token nothing else would tell it.
    - A request without the token, where there is one; too many of one client; too many at once.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        patience: float = PATIENCE,
        within: float = WHOLE,
    ) -> None:
        self._app = app
        self._within = within
        self._patience = patience
        self._token = settings.token
        self._names = {"localhost", *(name.lower() for name in (socket.gethostname(), *settings.names))}
        self._rate = Rate(settings.rate)
        self._most = settings.max_upload + FIELDS
        self._metrics = metrics
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the next one answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, taken, whole = time.monotonic(), 500, 0, False

        async def received() -> Message:
            nonlocal taken, whole
            # Who waits for the end of a connection may wait long.
            message = await receive() if whole else await self._soon(receive, start)
            taken, whole = taken + len(message.get("body", b"")), not message.get("more_body", False)
            self._check_size(taken)
            return message

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        self._running += 1
        self._metrics.began()
        try:
            self._check(scope)
            await self._app(scope, received, sent)
        except HTTPException as refusal:
            await told(refusal)(scope, receive, sent)
        finally:
            self._running -= 1
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.ended(scope["method"], route, status, time.monotonic() - start)

    def _check(self, scope: Scope) -> None:
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        if not self._known(headers.get("host", "")):
            raise HTTPException(403, "this server has another name: start it with --name to be reached by this one")
        if method not in SAFE and _from_elsewhere(headers):
            raise HTTPException(403, "a page from elsewhere asked for this: open the server's own page")
        if self._running > RUNNING:
            raise HTTPException(503, "too many requests at once: try again in a moment", {"Retry-After": "2"})
        if not path.startswith(API) or path == OPEN:
            return
        if self._token is not None and not _carries(headers, self._token):
            raise HTTPException(401, "this server asks for its token", {"WWW-Authenticate": "Bearer"})
        size = headers.get("content-length", "")
        self._check_size(int(size) if size.isdecimal() else 0)
        client = scope["client"][0] if scope.get("client") else "unknown"
        seconds = self._rate.wait(client, PICTURE if method in SAFE else 1.0)
        if seconds:
            wait = math.ceil(seconds)
            raise HTTPException(429, f"too many requests: try again in {wait} s", {"Retry-After": str(wait)})

    async def _soon(self, receive: Receive, start: float) -> Message:
        left = start + self._within - time.monotonic()
        try:
            return await asyncio.wait_for(receive(), min(self._patience, left))
        except TimeoutError:
            raise HTTPException(408, "the rest of this request did not come: send it again") from None

    def _check_size(self, size: int) -> None:
        if size > self._most:
            raise HTTPException(413, f"more than {self._most / 1e6:g} MB: send a smaller photo")

    def _known(self, host: str) -> bool:
        """Whether a Host header is an address, which no rebinding makes, or a name of this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return _is_address(name) or name.removesuffix(".local") in self._names


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that another site's page asks; programs say nothing."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def _carries(headers: Headers, token: str) -> bool:
    kind, _, given = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())

"""What every request passes before a route sees it: who may ask, from where, how often, how much; all is counted."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import math
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dolglab.library.catalogue import printable

API, HEALTH = "/api/", "/api/health"
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Requests that are answered at the same time, and clients whose rate is remembered.
MAX_REQUESTS, MAX_CLIENTS = 64, 10_000
# What a request without a search costs of a client's rate: a page of answers asks for many pictures.
SAFE_COST = 0.05
# Seconds that a client may be silent in the middle of a request, and that the whole of it may take: who sends byte by
# byte is never silent.
SILENCE, WHOLE_REQUEST = 20.0, 60.0
# Bytes of a form besides its photo, and characters of an error's line.
FORM_FIELDS, MAX_MESSAGE = 1_000_000, 300
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


def error_response(error: StarletteHTTPException) -> JSONResponse:
    """An exception as {"error": "one line"}: its detail in printable letters, cut where it is long."""
    message = printable(" ".join(str(error.detail).split()))
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]}…"
    return JSONResponse({"error": message}, error.status_code, error.headers)


@dataclass(frozen=True)
class Settings:
    """What a server allows.

    Attributes:
        token: asked of everyone; None asks nobody.
        max_upload: bytes of an uploaded photo.
        max_pixels: of an uploaded photo.
        rate: requests a minute of one client that make the server work; the same number may come at once.
        read_only: photos are neither added nor removed.
        names: host names it is reached by, besides localhost, this machine's own and addresses.
        root_path: the prefix that a proxy has it below, such as /photos, which it may pass on or take off; empty: none.
    """

    token: str | None = None
    max_upload: int = 20_000_000
    max_pixels: int = 50_000_000
    rate: float = 60.0
    read_only: bool = False
    names: frozenset[str] = frozenset()
    root_path: str = ""


class Metrics:
    """Requests by route and status, how long they took, how many are `running`, and photos that can be found."""

    def __init__(self, photos: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("dolg_requests", "Answered requests.", labels, registry=self._registry)
        self._seconds = Histogram(
            "dolg_request_seconds", "Seconds from a request to its answer.", ("route",), registry=self._registry
        )
        self.running = 0
        running = Gauge("dolg_requests_running", "Requests being answered.", registry=self._registry)
        running.set_function(lambda: self.running)
        found = Gauge("dolg_library_photos", "Photos that can be found.", registry=self._registry)
        found.set_function(photos)

    def request_started(self) -> None:
        """Count a request that came."""
        self.running += 1

    def request_finished(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one that was answered; methods that are none count as one, or clients could make any counter."""
        self.running -= 1
        self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)


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


class SecurityMiddleware:
    """ASGI middleware that turns away what must not come in, and adds security headers to every answer.

    - A Host that is a name of somebody else's: a page elsewhere that had its own name lead here (DNS rebinding).
    - A change that a page from elsewhere asks for. There are no cookies; without a token nothing else would tell it.
    - A request without the token, where there is one; too many of one client; too many at once.
    - A request that is too large, stops for `silence` seconds, or is not here within `whole` seconds.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics, silence: float = SILENCE, whole: float = WHOLE_REQUEST
    ) -> None:
        self._app = app
        self._silence = silence
        self._whole = whole
        self._token = settings.token
        self._names = {"localhost", *(name.lower() for name in (socket.gethostname(), *settings.names))}
        self._rate = RateLimiter(settings.rate)
        self._max_bytes = settings.max_upload + FORM_FIELDS
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal, or have the application answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, size, complete = time.monotonic(), 500, 0, False

        async def limited_receive() -> Message:
            nonlocal size, complete
            # Who waits for the end of a connection may wait long.
            seconds = None if complete else min(self._silence, start + self._whole - time.monotonic())
            try:
                message = await asyncio.wait_for(receive(), seconds)
            except TimeoutError:
                raise HTTPException(408, "the rest of this request did not come: send it again") from None
            size, complete = size + len(message.get("body", b"")), not message.get("more_body", False)
            self._check_size(size)
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        self._metrics.request_started()
        try:
            self._check(scope)
            await self._app(scope, limited_receive, send_with_headers)
        except HTTPException as refusal:
            await error_response(refusal)(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.request_finished(scope["method"], route, status, time.monotonic() - start)

    def _check(self, scope: Scope) -> None:
        headers, method = Headers(scope=scope), scope["method"]
        # As Starlette finds a route.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if not self._is_own_name(headers.get("host", "")):
            raise HTTPException(403, "this server has another name: start it with --name to be reached by this one")
        if method not in SAFE_METHODS and _is_cross_site(headers):
            raise HTTPException(403, "a page from elsewhere asked for this: open the server's own page")
        if self._metrics.running > MAX_REQUESTS:
            raise HTTPException(503, "too many requests at once: try again in a moment", {"Retry-After": "2"})
        if not path.startswith(API) or path == HEALTH:
            return
        if self._token is not None and not _has_token(headers, self._token):
            raise HTTPException(401, "this server asks for its token", {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "")
        self._check_size(int(length) if length.isdecimal() else 0)
        client = scope["client"][0] if scope.get("client") else "unknown"
        seconds = math.ceil(self._rate.acquire(client, SAFE_COST if method in SAFE_METHODS else 1.0))
        if seconds:
            raise HTTPException(429, f"too many requests: try again in {seconds} s", {"Retry-After": str(seconds)})

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise HTTPException(413, f"more than {self._max_bytes / 1e6:g} MB: send a smaller photo")

    def _is_own_name(self, host: str) -> bool:
        """Whether a Host header is an address, which no rebinding makes, or a name of this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.removesuffix(".local") in self._names
        return True


def _is_cross_site(headers: Headers) -> bool:
    """Whether a browser says that another site's page asks; programs say nothing."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def _has_token(headers: Headers, token: str) -> bool:
    kind, _, given = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())

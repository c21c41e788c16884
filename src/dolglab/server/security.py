"""The middleware in front of all routes: origin, token, rate, size and concurrency checks, and metrics."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import math
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dolglab.library.naming import printable
from dolglab.server.limits import CLIENT, FairLimiter, Limits, RateLimiter

API, HEALTH = "/api/", "/api/health"
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Cost of a GET request against a client's rate: a page of answers requests many thumbnails.
SAFE_COST = 0.05
# Wrong tokens per client and minute before responses are delayed.
WRONG_TOKENS = 10
# Maximum bodies of full size held in memory, and bytes of a body that are passed to the application at a time.
BODIES, PIECE = 16, 1 << 16
# Maximum bytes of a form besides its photo, and characters of an error message.
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
    """An exception as {"error": "one line"}, with unprintable characters replaced and long messages truncated."""
    message = printable(" ".join(str(error.detail).split()))
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]}…"
    return JSONResponse({"error": message}, error.status_code, error.headers)


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Attributes:
        token: required of all clients; None for no token.
        max_upload: maximum bytes of an uploaded photo.
        max_pixels: maximum pixels of an uploaded photo.
        rate: requests per minute and client, GET requests counting less; as many may come in one burst.
        read_only: photos cannot be added or removed.
        names: accepted host names besides localhost, this machine's name and IP addresses.
        root_path: prefix under which a proxy serves it, such as /photos, even if the proxy strips it; "" for none.
        limits: limits of requests.
    """

    token: str | None = None
    max_upload: int = 20_000_000
    max_pixels: int = 50_000_000
    rate: float = 60.0
    read_only: bool = False
    names: frozenset[str] = frozenset()
    root_path: str = ""
    limits: Limits = field(default_factory=Limits)


class Metrics:
    """Metrics: requests by route and status, their durations, the number `running`, and the photos of the library."""

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
        """Count a new request."""
        self.running += 1

    def request_finished(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. Unknown methods share a label, or clients could create any number of counters."""
        self.running -= 1
        self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class SecurityMiddleware:
    """ASGI middleware that adds security headers to every response and refuses

    - requests with an unknown Host, which protects against DNS rebinding;
    - changes requested by pages of other sites (CSRF), since without a token nothing else would stop them;
    - requests without the token, if there is one, and too many requests from one client;
    - requests that are too large or incomplete;
    - too many simultaneous requests. A request only counts from its last byte received until its response begins, so
      slow clients do not block others.

    The health check (`HEALTH`) is exempt from all but the first two.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._limits = settings.limits
        self._token = settings.token
        self._names = {"localhost", *(name.lower() for name in (socket.gethostname(), *settings.names))}
        self._rate = RateLimiter(settings.rate)
        self._wrong_tokens = RateLimiter(WRONG_TOKENS)
        self._max_upload = settings.max_upload
        self._places = FairLimiter("requests", self._limits.requests)
        self._held_bytes = FairLimiter("uploads", BODIES * (settings.max_upload + FORM_FIELDS))
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, headers = time.monotonic(), 500, Headers(scope=scope)
        CLIENT.set(scope["client"][0] if scope.get("client") else "unknown")

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                taken.close()
                status = message["status"]
                answered = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answered[name] = value
                answered.setdefault("Cache-Control", "no-store")
            await send(message)

        self._metrics.request_started()
        with ExitStack() as taken:
            try:
                self._check_origin(headers, scope["method"])
                # The path that Starlette matches with routes.
                path = scope["path"].removeprefix(scope.get("root_path", ""))
                if path.startswith(API) and path != HEALTH:
                    await self._check_client(headers, scope["method"])
                    receive = await self._receive_whole(headers, receive, taken)
                    taken.enter_context(self._places)
                await self._app(scope, receive, send_with_headers)
            except HTTPException as refusal:
                await error_response(refusal)(scope, receive, send_with_headers)
            except ClientDisconnect:
                # There is no client left to answer.
                pass
            finally:
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.request_finished(scope["method"], route, status, time.monotonic() - start)

    def _check_origin(self, headers: Headers, method: str) -> None:
        if not self._is_own_name(headers.get("host", "")):
            raise HTTPException(403, "unknown host name: add it with --name")
        if method not in SAFE_METHODS and _is_cross_site(headers):
            raise HTTPException(403, "request from another site's page: open this server's own page")

    async def _check_client(self, headers: Headers, method: str) -> None:
        if self._token is not None:
            await self._check_token(headers.get("authorization", ""), self._token)
        length = headers.get("content-length", "")
        self._check_size(int(length) if length.isdecimal() else 0, headers)
        await self._refuse("requests", self._rate.acquire(CLIENT.get(), SAFE_COST if method in SAFE_METHODS else 1.0))

    async def _check_token(self, authorization: str, token: str) -> None:
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
            # Wrong tokens of others at the same address do not delay a correct one.
            return
        if authorization:
            await self._refuse("wrong tokens", self._wrong_tokens.acquire(CLIENT.get()))
        raise HTTPException(401, "this server requires a token", {"WWW-Authenticate": "Bearer"})

    async def _refuse(self, what: str, seconds: float) -> None:
        """Raise HTTPException 429 if there are seconds to wait, after a delay that slows down immediate retries."""
        if seconds:
            await asyncio.sleep(self._limits.refused)
            whole = math.ceil(seconds)
            raise HTTPException(429, f"too many {what}: try again in {whole} s", {"Retry-After": str(whole)})

    async def _receive_whole(self, headers: Headers, receive: Receive, taken: ExitStack) -> Receive:
        """Receive the complete body, whose bytes count as held until `taken` is closed.

        Returns the function from which the application receives it. Raises HTTPException 408, 413 and 503, and
        ClientDisconnect.
        """
        body, more, end = bytearray(), True, time.monotonic() + self._limits.whole

        def forget() -> None:
            self._held_bytes.release(len(body))
            body.clear()

        taken.callback(forget)
        while more:
            try:
                message = await asyncio.wait_for(receive(), min(self._limits.silence, end - time.monotonic()))
            except TimeoutError:
                raise HTTPException(408, "the request was not received completely: send it again") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece, more = message.get("body", b""), message.get("more_body", False)
            self._check_size(len(body) + len(piece), headers)
            self._held_bytes.acquire(len(piece))
            body += piece
        offsets = iter(range(0, max(len(body), 1), PIECE))

        async def receive_body() -> Message:
            offset = next(offsets, None)
            if offset is None:
                return await receive()
            # The application parses each piece in the event loop: let other requests run in between.
            await asyncio.sleep(0)
            piece = bytes(body[offset : offset + PIECE])
            return {"type": "http.request", "body": piece, "more_body": offset + PIECE < len(body)}

        return receive_body

    def _check_size(self, size: int, headers: Headers) -> None:
        most = FORM_FIELDS
        if headers.get("content-type", "").startswith("multipart/form-data"):
            most += self._max_upload
        if size > most:
            raise HTTPException(413, f"the request is larger than {most / 1e6:g} MB: send a smaller photo")

    def _is_own_name(self, host: str) -> bool:
        """Whether a Host header is a name of this server or an IP address, which DNS rebinding cannot forge."""
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
    """Whether a browser marks the request as coming from another site's page; programs send no such headers."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    try:
        return "origin" in headers and urlsplit(headers["origin"]).netloc != headers.get("host")
    except ValueError:
        # Browsers never send an invalid origin.
        return True

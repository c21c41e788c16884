"""What every request passes before a route sees it: who may ask, from where, how often, how much; all is counted."""

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
# What a request without a search costs of a client's rate: a page of answers asks for many pictures.
SAFE_COST = 0.05
# Wrong tokens of one client within a minute that are answered at once.
WRONG_TOKENS = 10
# Bodies of the largest size that are held at the same time, and bytes of one that the application is given at a time.
BODIES, PIECE = 16, 1 << 16
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
        limits: what one request may take.
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


class SecurityMiddleware:
    """ASGI middleware that turns away what must not come in, and adds security headers to every answer.

    - A Host that is a name of somebody else's: a page elsewhere that had its own name lead here (DNS rebinding).
    - A change that a page from elsewhere asks for. There are no cookies; without a token nothing else would tell it.
    - A request without the token, where there is one; too many of one client.
    - A request that is too large, or does not come to its end.
    - Too many at once. A request takes a place among those that are worked on when all of it is here, and leaves it
      when its answer begins: who sends or reads slowly is in nobody's way.

    Whether the server is there (`HEALTH`) is answered whatever else it does.
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
        """Answer a refusal, or have the application answer."""
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
                # As Starlette finds a route.
                path = scope["path"].removeprefix(scope.get("root_path", ""))
                if path.startswith(API) and path != HEALTH:
                    await self._check_client(headers, scope["method"])
                    receive = await self._receive_whole(headers, receive, taken)
                    taken.enter_context(self._places)
                await self._app(scope, receive, send_with_headers)
            except HTTPException as refusal:
                await error_response(refusal)(scope, receive, send_with_headers)
            except ClientDisconnect:
                # Nobody is there to be answered.
                pass
            finally:
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.request_finished(scope["method"], route, status, time.monotonic() - start)

    def _check_origin(self, headers: Headers, method: str) -> None:
        if not self._is_own_name(headers.get("host", "")):
            raise HTTPException(403, "this server has another name: start it with --name to be reached by this one")
        if method not in SAFE_METHODS and _is_cross_site(headers):
            raise HTTPException(403, "a page from elsewhere asked for this: open the server's own page")

    async def _check_client(self, headers: Headers, method: str) -> None:
        if self._token is not None:
            await self._check_token(headers.get("authorization", ""), self._token)
        length = headers.get("content-length", "")
        self._check_size(int(length) if length.isdecimal() else 0, headers)
        await self._refuse("requests", self._rate.acquire(CLIENT.get(), SAFE_COST if method in SAFE_METHODS else 1.0))

    async def _check_token(self, authorization: str, token: str) -> None:
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
            # Not slowed down by another's wrong ones, which may come from the same address.
            return
        if authorization:
            await self._refuse("wrong tokens", self._wrong_tokens.acquire(CLIENT.get()))
        raise HTTPException(401, "this server asks for its token", {"WWW-Authenticate": "Bearer"})

    async def _refuse(self, what: str, seconds: float) -> None:
        """Raise HTTPException 429 where there are seconds to wait; not at once, or the next one would come at once."""
        if seconds:
            await asyncio.sleep(self._limits.refused)
            whole = math.ceil(seconds)
            raise HTTPException(429, f"too many {what}: try again in {whole} s", {"Retry-After": str(whole)})

    async def _receive_whole(self, headers: Headers, receive: Receive, taken: ExitStack) -> Receive:
        """Receive a request's body, whose bytes count until `taken` is closed; returns what gives it, and then waits.

        Raises HTTPException 408, 413 and 503, and ClientDisconnect.
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
                raise HTTPException(408, "the rest of this request did not come: send it again") from None
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
            # What is made of a piece is made in the thread that serves everyone.
            await asyncio.sleep(0)
            piece = bytes(body[offset : offset + PIECE])
            return {"type": "http.request", "body": piece, "more_body": offset + PIECE < len(body)}

        return receive_body

    def _check_size(self, size: int, headers: Headers) -> None:
        most = FORM_FIELDS
        if headers.get("content-type", "").startswith("multipart/form-data"):
            most += self._max_upload
        if size > most:
            raise HTTPException(413, f"more than {most / 1e6:g} MB: send a smaller photo")

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
    try:
        return "origin" in headers and urlsplit(headers["origin"]).netloc != headers.get("host")
    except ValueError:
        # No browser sends what is no address.
        return True

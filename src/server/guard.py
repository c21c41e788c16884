"""What every request passes before a route sees it: who may ask, from where, how often; and what every answer says."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import math
import socket
import time
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.server.errors import told
from src.server.limits import Rate
from src.server.metrics import Metrics
from src.server.settings import Settings

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

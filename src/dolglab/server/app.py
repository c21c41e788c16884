"""The server: its FastAPI application, and running it with uvicorn."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import typer
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dolglab.errors import UserError
from dolglab.library.search_engine import SearchEngine
from dolglab.server import overviews
from dolglab.server.connections import (
    ACCEPTED_AT_ONCE,
    BoundedConnection,
    BoundedServer,
    ConnectionLimiter,
    connection_limit,
)
from dolglab.server.isolation import IsolatedExecutor
from dolglab.server.routes import ROUTERS
from dolglab.server.security import Metrics, SecurityMiddleware, Settings, error_response
from dolglab.server.service import SearchService, build_decoder
from dolglab.version import __version__

DESCRIPTION = """Search a library of photos by photo.

Every error is `{"error": "one line"}`. Where the server has a token, it is sent as `Authorization: Bearer TOKEN`.
A page of another site can neither read answers nor change anything; programs need no header for that.
"""
OPEN_WARNING = "warning: everyone who reaches this address can search the library, and change it: --token, --read-only"
# Seconds that a connection without a request is kept, and that running requests have at the end.
KEEP_ALIVE, SHUTDOWN = 10, 5


def build_app(finder: SearchEngine, settings: Settings, decoder: IsolatedExecutor | None = None) -> FastAPI:
    """A library's page and REST API, the latter described at /api/openapi.json.

    `decoder` is where uploads are decoded; None for one of its own, as `build_decoder` makes it.
    """
    # FastAPI's own documentation pages load their scripts from elsewhere.
    app = FastAPI(
        title="Photo search",
        description=DESCRIPTION,
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    metrics = Metrics(finder.library.__len__)
    app.state.service = SearchService(finder, settings, decoder or build_decoder(settings))
    app.state.metrics = metrics
    for router in (*ROUTERS, overviews.router):
        app.include_router(router)
    _add_error_handlers(app, finder.library.folder)
    app.add_middleware(SecurityMiddleware, settings=settings, metrics=metrics)
    # The last one is the first that a request meets.
    app.add_middleware(RootPathMiddleware, root_path=settings.root_path)
    return app


class RootPathMiddleware:
    """ASGI middleware that has each path begin with `root_path`, as ASGI wants it: a proxy may have taken it off."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer."""
        if scope["type"] == "http":
            path = scope["path"]
            if not f"{path}/".startswith(f"{self._root_path}/"):
                path = self._root_path + path
            scope = {**scope, "root_path": self._root_path, "path": path}
        await self._app(scope, receive, send)


def hide_folder(message: str, folder: Path) -> str:
    """A message for clients, who are not told where the library's folder lies on this machine.

    >>> hide_folder("/srv/library/a.jpg is no photo", Path("/srv/library"))
    'a.jpg is no photo'
    """
    for path in {str(folder.absolute()), str(folder.resolve())}:
        message = re.sub(rf"{re.escape(path)}/", "", message)
        message = re.sub(rf"{re.escape(path)}(?![\w.-])", "the library", message)
    # An option of the command line, which clients do not have.
    return message.removesuffix(" (--metadata)")


def _add_error_handlers(app: FastAPI, folder: Path) -> None:
    """Have the app answer every exception as JSON; `folder` is the library's."""

    def handle(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, StarletteHTTPException):
            return error_response(error)
        if isinstance(error, RequestValidationError):
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"][1:])
            return error_response(HTTPException(422, f"{field}: {first['msg']}" if field else first["msg"]))
        if isinstance(error, UserError):
            return error_response(HTTPException(400, hide_folder(str(error), folder)))
        if isinstance(error, sqlite3.Error):
            logging.getLogger("dolg.server").error("the catalogue: %s", error)
            busy = HTTPException(503, "the library cannot be read just now: try again", {"Retry-After": "5"})
            return error_response(busy)
        return error_response(HTTPException(500, "the server failed: its log says how"))

    for kind in (StarletteHTTPException, RequestValidationError, UserError, sqlite3.Error, Exception):
        app.add_exception_handler(kind, handle)


def run(library: str, host: str, port: int, settings: Settings, backend: str = "auto") -> None:
    """Serve a library's folder until interrupted. The port is taken before the network is loaded.

    Raises UserError for an address that cannot be had, or no such library.
    """
    with closing(_bind(host, port)) as listener:
        if settings.token is None and not _is_loopback(host):
            typer.echo(OPEN_WARNING, err=True)
        app = build_app(SearchEngine(library, backend), settings)
        url_host = f"[{host}]" if ":" in host else host
        typer.echo(f"http://{url_host}:{listener.getsockname()[1]}/")
        limiter = ConnectionLimiter(settings.limits.connections or connection_limit())
        config = uvicorn.Config(
            app,
            http=partial(BoundedConnection, limits=settings.limits, limiter=limiter),  # pyright: ignore[reportArgumentType]
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            # A client could otherwise claim to be another one.
            proxy_headers=False,
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=SHUTDOWN,
            lifespan="off",
        )
        BoundedServer(config).run(sockets=[listener])


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot listen at {host}:{port} ({error.strerror}): another --port, or 0 for a free one"
        ) from None
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

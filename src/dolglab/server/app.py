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
    BACKLOG,
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

Errors are returned as `{"error": "one line"}`. If the server has a token, send it as `Authorization: Bearer TOKEN`.
Requests from pages of other sites are refused; programs need no extra header.
"""
OPEN_WARNING = "warning: anyone who reaches this address can search and change the library: see --token and --read-only"
# Seconds that an idle connection is kept open, and seconds that running requests get at shutdown.
KEEP_ALIVE, SHUTDOWN = 10, 5


def build_app(finder: SearchEngine, settings: Settings, decoder: IsolatedExecutor | None = None) -> FastAPI:
    """A library's page and REST API, which is described at /api/openapi.json.

    `decoder` decodes uploads; None for a new one from `build_decoder`.
    """
    # FastAPI's own documentation pages load scripts from a CDN.
    app = FastAPI(
        title="Photo search",
        description=DESCRIPTION,
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = SearchService(finder, settings, decoder or build_decoder(settings))
    app.state.metrics = metrics = Metrics(lambda: len(app.state.service.current().finder.library))
    for router in (*ROUTERS, overviews.router):
        app.include_router(router)
    _add_error_handlers(app, finder.library.folder)
    app.add_middleware(SecurityMiddleware, settings=settings, metrics=metrics)
    # The middleware added last runs first.
    app.add_middleware(RootPathMiddleware, root_path=settings.root_path)
    return app


class RootPathMiddleware:
    """ASGI middleware that prepends `root_path` to paths from which a proxy has stripped it, as ASGI requires."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to the application."""
        if scope["type"] == "http":
            path = scope["path"]
            if not f"{path}/".startswith(f"{self._root_path}/"):
                path = self._root_path + path
            scope = {**scope, "root_path": self._root_path, "path": path}
        await self._app(scope, receive, send)


def hide_folder(message: str, folder: Path) -> str:
    """A message for clients, without the path of the library's folder.

    >>> hide_folder("/srv/library/a.jpg is damaged", Path("/srv/library"))
    'a.jpg is damaged'
    """
    for path in {str(folder.absolute()), str(folder.resolve())}:
        message = re.sub(rf"{re.escape(path)}/", "", message)
        message = re.sub(rf"{re.escape(path)}(?![\w.-])", "the library", message)
    return message


def _add_error_handlers(app: FastAPI, folder: Path) -> None:
    """Return every exception as JSON; `folder` is the library's."""

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
            busy = HTTPException(503, "the library cannot be read at the moment: try again", {"Retry-After": "5"})
            return error_response(busy)
        return error_response(HTTPException(500, "internal error: see the server's log"))

    for kind in (StarletteHTTPException, RequestValidationError, UserError, sqlite3.Error, Exception):
        app.add_exception_handler(kind, handle)


def run(library: str, host: str, port: int, settings: Settings, backend: str = "auto") -> None:
    """Serve a library until interrupted. The port is bound before the network is loaded.

    Raises UserError for an address that cannot be bound, or a folder without a library.
    """
    with closing(bind(host, port)) as listener:
        if settings.token is None and not _is_loopback(host):
            typer.echo(OPEN_WARNING, err=True)
        app = build_app(SearchEngine(library, backend), settings)
        # A program that reads the address may connect at once; it then waits for the first response.
        listener.listen(BACKLOG)
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
            # Clients could otherwise forge their address.
            proxy_headers=False,
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=SHUTDOWN,
            lifespan="off",
        )
        BoundedServer(config).run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A bound socket, whose connections asyncio makes send at once. Raises UserError for an address that is taken."""
    # asyncio sets TCP_NODELAY only if the protocol is stated. Without it, the second part of a response may wait 40 ms
    # until the client acknowledges the first.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another --port, or 0 for any free one"
        ) from None
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

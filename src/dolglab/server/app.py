"""Running the server: the port first, then the library, then the address that it is reached by."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import typer
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response

from dolglab import __version__
from dolglab.errors import UserError
from dolglab.library.search_engine import SearchEngine
from dolglab.server import app as api_page
from dolglab.server import routes as about_routes
from dolglab.server import routes as page_routes
from dolglab.server import routes as photo_routes
from dolglab.server import routes as search_routes
from dolglab.server.errors import add_handlers
from dolglab.server.security import Guard, Metrics, Settings
from dolglab.server.service import Desk
from dolglab.templates import template

TEMPLATE = Path(__file__).parent / "page" / "api.html.j2"

router = APIRouter(include_in_schema=False)


class Field(NamedTuple):
    """A parameter, or a field of what is sent."""

    name: str
    needed: bool
    about: str


class Operation(NamedTuple):
    """A route: what it is for, what it takes, what it answers (status and why)."""

    method: str
    path: str
    about: str
    kind: str
    fields: list[Field]
    answers: list[tuple[str, str]]


@router.get("/api")
async def documentation(request: Request) -> Response:
    """The page."""
    described = request.app.openapi()
    info = described["info"]
    page = template(TEMPLATE).render(
        title=info["title"],
        about=info["description"].strip().split("\n\n"),
        address=str(request.base_url),
        operations=list(_operations(described)),
    )
    return Response(page, media_type="text/html")


def _operations(described: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            kind, sent = _sent(described, operation)
            given = [Field(one["name"], one["required"], one["description"]) for one in operation.get("parameters", [])]
            answers = [(status, answer["description"]) for status, answer in operation["responses"].items()]
            yield Operation(method.upper(), path, operation["description"], kind, [*given, *sent], answers)


def _sent(described: dict[str, Any], operation: dict[str, Any]) -> tuple[str, list[Field]]:
    """What is sent as, and its fields."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = described["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        needed = schema.get("required", [])
        return f"Sent as {kind}. ", [
            Field(name, name in needed, field.get("description", "")) for name, field in schema["properties"].items()
        ]
    return "", []


ABOUT = """Search a library of photos by photo.

Every error is `{"error": "one line"}`. Where the server has a token, it is sent as `Authorization: Bearer TOKEN`.
A page of another site can neither read answers nor change anything; programs need no header for that.
"""


def build_app(finder: SearchEngine, settings: Settings) -> FastAPI:
    """A library's page and REST API, the latter described at /api/openapi.json."""
    # The documentation pages that FastAPI brings load their scripts from elsewhere.
    app = FastAPI(
        title="Photo search",
        description=ABOUT,
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    metrics = Metrics(finder.library.__len__)
    app.state.desk = Desk(finder, settings)
    app.state.metrics = metrics
    for part in (search_routes, photo_routes, about_routes, page_routes, api_page):
        app.include_router(part.router)
    add_handlers(app, finder.library.folder)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    return app


# Connections that the system holds for the server, and seconds that it keeps an idle one, or waits when it ends.
BACKLOG, IDLE, ENDING = 128, 10, 5
OPEN = "warning: everyone who reaches this address can search the library, and change it: --token, --read-only"


def run(library: str, host: str, port: int, settings: Settings, backend: str = "torch") -> None:
    """Serve until interrupted. Raises UserError for an address that cannot be had, or no such library."""
    with closing(_listening(host, port)) as listening:
        if settings.token is None and not _loopback(host):
            typer.echo(OPEN, err=True)
        app = build_app(SearchEngine(library, backend), settings)
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"http://{shown}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            # Whoever asks could otherwise say that somebody else does.
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=ENDING,
            lifespan="off",
        )
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UserError(
            f"cannot listen at {host}:{port} ({error.strerror}): another --port, or 0 for a free one"
        ) from None
    return listening


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""The server's application."""

from __future__ import annotations

from fastapi import FastAPI

from src import __version__
from src.library.finder import Finder
from src.server import about_routes, api_page, page_routes, photo_routes, search_routes
from src.server.desk import Desk
from src.server.errors import add_handlers
from src.server.guard import Guard
from src.server.metrics import Metrics
from src.server.settings import Settings

ABOUT = """Search a library of photos by photo.

Every error is `{"error": "one line"}`. Where the server has a token, it is sent as `Authorization: Bearer TOKEN`.
A page of another site can neither read answers nor change anything; programs need no header for that.
"""


def build_app(finder: Finder, settings: Settings) -> FastAPI:
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

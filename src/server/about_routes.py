"""The server itself: whether it answers, what it serves, what it counted."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from src.server import models
from src.server.routes import GUARDED, TOKEN, AtDesk, errors

router = APIRouter(prefix="/api", tags=["server"])

# Values of a column that are listed.
LISTED = 50


class Prometheus(Response):
    """Prometheus's text format."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"


# The one route whose errors are given as a model, so that the description has it: see `errors`.
@router.get("/health", responses={status: {"model": models.Error} for status in (403, 503)})
async def health() -> models.Health:
    """Say that the server answers. Asks for no token."""
    return models.Health(status="ok")


@router.get("/library", dependencies=TOKEN, responses=errors(*GUARDED))
def library(desk: AtDesk) -> models.About:
    """Say what the library holds, which columns it can be filtered by, and what this server allows."""
    held, settings = desk.finder.library, desk.settings
    found = {name: held.catalogue.values(name, LISTED + 1) for name in held.catalogue.columns()}
    return models.About(
        photos=len(held),
        model=held.identity["title"],
        columns=[
            models.Column(name=name, values=values if len(values) <= LISTED else None) for name, values in found.items()
        ],
        read_only=settings.read_only,
        max_upload_bytes=settings.max_upload,
        max_pixels=settings.max_pixels,
    )


@router.get("/metrics", dependencies=TOKEN, response_class=Prometheus, responses=errors(*GUARDED))
def metrics(request: Request) -> Prometheus:
    """Counters in Prometheus's text format."""
    return Prometheus(request.app.state.metrics.text())

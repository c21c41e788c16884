"""The page: a few files, read when the server starts, so that no request leads to a path."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException, Response

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FOLDER = Path(__file__).parent / "page"
FILES = {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in FOLDER.iterdir() if path.suffix in TYPES}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index() -> Response:
    """The page itself."""
    return _file("index.html")


@router.get("/page/{name}")
async def part(name: str) -> Response:
    """What it consists of."""
    return _file(name)


def _file(name: str) -> Response:
    if name not in FILES:
        raise HTTPException(404, "there is no such page")
    data, kind = FILES[name]
    return Response(data, media_type=kind, headers={"Cache-Control": "no-cache"})

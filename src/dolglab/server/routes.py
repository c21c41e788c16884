"""Searching: by photo, by marks, and why a photo was found."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, Response, UploadFile
from fastapi import Path as PathParam
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.library.photos import FORMATS, Box, read_box
from dolglab.server import schemas as models
from dolglab.server.photo_files import folder_name, in_chunks, safe_name
from dolglab.server.schemas import shown_answers, shown_explanation, shown_photo
from dolglab.server.security import check_header
from dolglab.server.service import Desk

REASONS = {
    400: "A photo, a box, a filter or another field that does not fit; the line says what.",
    401: "The token is missing or wrong.",
    403: "Not from there, or not on this server.",
    404: "No such photo.",
    408: "The rest of the request did not come.",
    410: "The photo's file is gone, or another than was described.",
    413: "Too many bytes or pixels.",
    422: "A field is missing or of another kind.",
    429: "Too many requests of one client: `Retry-After` says when to come again.",
    503: "Too many at once, or another process changes the library: `Retry-After` says when to come again.",
    507: "The disk does not take it.",
}
# Of any route that the guard stands before.
GUARDED = (401, 403, 429, 503)


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route says in the OpenAPI description of the errors it may answer with."""
    # A `model` would be described as the route's own kind of answer, such as a JPEG.
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": REASONS[status], "content": content} for status in sorted(statuses)}


def _desk(request: Request) -> Desk:
    return request.app.state.desk


async def _known_fields(request: Request) -> None:
    """Raise HTTPException 422 for a field of a form that the route does not have: it would do nothing, unseen."""
    known = [field.alias for field in request.scope["route"].dependant.body_params]
    for name in await request.form():
        if name not in known:
            raise HTTPException(422, f"there is no field {name}: the fields are {', '.join(known)}")


def checked_bytes(photo: UploadFile, most: int) -> bytes:
    """The bytes of an uploaded photo. Raises HTTPException 413 for more than `most`."""
    if photo.size is not None and photo.size > most:
        raise HTTPException(413, f"the photo has more than {most / 1e6:g} MB: send a smaller one")
    return photo.file.read()


# For the description alone: the guard asks for the token, before a body is read.
TOKEN = [Depends(HTTPBearer(auto_error=False, description="Where the server has a token."))]
# Of routes that take a form.
FORM = [Depends(_known_fields)]
AtDesk = Annotated[Desk, Depends(_desk)]
Upload = Annotated[UploadFile, File(description=f"An image file: {FORMATS}.")]
BoxField = Annotated[str, Form(description="Only this part: x1,y1,x2,y2 in pixels of the upright photo.")]
WhereField = Annotated[list[str], Form(description="Only photos with this in a column: COLUMN=VALUE.")]


COLUMNS, KEY, VALUE = 50, 100, 1000


def read_part(text: str) -> Box | None:
    """A box, or None for nothing. Raises UserError for what is no box, or not finite."""
    if not text.strip():
        return None
    box = read_box(text)
    if not np.isfinite(box).all():
        raise UserError(f"a box is x1,y1,x2,y2 in pixels, not {text}")
    return box


def read_where(conditions: Sequence[str]) -> dict[str, str]:
    """Values by column, of COLUMN=VALUE each. Raises UserError for anything else."""
    for condition in conditions:
        if "=" not in condition:
            raise UserError(f"where wants COLUMN=VALUE, not {condition}")
    return dict(condition.split("=", 1) for condition in conditions)


def read_metadata(text: str) -> dict[str, str]:
    """A photo's columns, from a JSON object of strings. Raises UserError for anything else."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise UserError('metadata is a JSON object of strings, such as {"year": "1901"}') from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UserError('metadata is a JSON object of strings, such as {"year": "1901"}')
    if len(found) > COLUMNS:
        raise UserError(f"metadata has {len(found)} columns, more than {COLUMNS}")
    for key, value in found.items():
        # A quote or a backslash would end the name in SQLite's JSON paths.
        if not 0 < len(key) <= KEY or not key.isprintable() or set(key) & set('"\\'):
            raise UserError(f"a column's name is up to {KEY} characters without quotes or backslashes, not {key}")
        if len(value) > VALUE or "\0" in value or (not value.isascii() and not _is_unicode(value)):
            raise UserError(f"a column's value is up to {VALUE} characters of text: {key}")
    return found


def read_descriptor(text: str, dim: int) -> NDArray[np.float32]:
    """A descriptor, (dim,), L2-normalised, from float32 in base64. Raises UserError for anything else."""
    try:
        found = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        found = np.empty(0, np.float32)
    with np.errstate(all="ignore"):
        norm = np.linalg.norm(found.astype(np.float64))
    if found.shape != (dim,) or not np.isfinite(norm) or norm == 0:
        raise UserError(f"the descriptor is not one that /api/search gave: {dim} float32 in base64")
    return (found / norm).astype(np.float32)


def as_text(descriptor: NDArray[np.float32]) -> str:
    """A descriptor as `read_descriptor` reads it."""
    return base64.b64encode(descriptor.astype("<f4").tobytes()).decode()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


server_router = APIRouter(prefix="/api", tags=["server"])

# Values of a column that are listed.
LISTED = 50


class Prometheus(Response):
    """Prometheus's text format."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"


# The one route whose errors are given as a model, so that the description has it: see `errors`.
@server_router.get("/health", responses={status: {"model": models.Error} for status in (403, 503)})
async def health() -> models.Health:
    """Say that the server answers. Asks for no token."""
    return models.Health(status="ok")


@server_router.get("/library", dependencies=TOKEN, responses=errors(*GUARDED))
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


@server_router.get("/metrics", dependencies=TOKEN, response_class=Prometheus, responses=errors(*GUARDED))
def metrics(request: Request) -> Prometheus:
    """Counters in Prometheus's text format."""
    return Prometheus(request.app.state.metrics.text())


TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FOLDER = Path(__file__).parent / "page"
FILES = {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in FOLDER.iterdir() if path.suffix in TYPES}

page_router = APIRouter(include_in_schema=False)


@page_router.get("/")
async def index() -> Response:
    """The page itself."""
    return _file("index.html")


@page_router.get("/page/{name}")
async def part(name: str) -> Response:
    """What it consists of."""
    return _file(name)


def _file(name: str) -> Response:
    if name not in FILES:
        raise HTTPException(404, "there is no such page")
    data, kind = FILES[name]
    return Response(data, media_type=kind, headers={"Cache-Control": "no-cache"})


photo_router = APIRouter(prefix="/api", tags=["photos"], dependencies=TOKEN)

Id = Annotated[int, PathParam(ge=1, le=models.LARGEST, description="A photo's number in the library.")]
Numbers = Annotated[list[models.Number], Form(max_length=models.MOST_MARKS)]
KEPT = {"Cache-Control": "private, max-age=300"}


class Jpeg(Response):
    """A picture."""

    media_type = "image/jpeg"


class Zip(StreamingResponse):
    """An archive."""

    media_type = "application/zip"


@photo_router.get("/photos/{id}", responses=errors(404, 422, *GUARDED))
def photo(desk: AtDesk, id: Id) -> models.Photo:
    """What the library knows about a photo."""
    return shown_photo(desk.photo(id))


@photo_router.get("/photos/{id}/thumbnail", response_class=Jpeg, responses=errors(404, 410, 422, *GUARDED))
def thumbnail(desk: AtDesk, id: Id) -> Jpeg:
    """A small picture of a photo, at most 360 pixels a side."""
    return Jpeg(desk.pictures.small(desk.photo(id)), headers=KEPT)


@photo_router.get("/photos/{id}/image", response_class=Jpeg, responses=errors(404, 410, 422, *GUARDED))
def image(desk: AtDesk, id: Id) -> Jpeg:
    """A photo for a screen, at most 1600 pixels a side, without what its file says about place and camera."""
    return Jpeg(desk.pictures.large(desk.photo(id)), headers=KEPT)


@photo_router.post("/photos", dependencies=FORM, status_code=201, responses=errors(400, 408, 413, 422, 507, *GUARDED))
def add(
    desk: AtDesk,
    photo: Upload,
    metadata: Annotated[str, Form(description='Columns: a JSON object of strings, such as {"year": "1901"}.')] = "",
) -> models.Photo:
    """Add a photo: its file is kept in the library's folder `added-photos`, under its name or one like it."""
    data = checked_bytes(photo, desk.settings.max_upload)
    return shown_photo(desk.add(data, photo.filename or "", read_metadata(metadata)))


@photo_router.delete("/photos/{id}", responses=errors(404, 422, *GUARDED))
def remove(desk: AtDesk, id: Id) -> models.Removed:
    """Take a photo out of the library. Its file is deleted only where it was added here.

    Of a folder that was embedded, the next `dolglab embed` of that folder takes the photo in again.
    """
    return models.Removed(id=id, deleted=desk.remove(id))


@photo_router.post(
    "/marks/export", dependencies=FORM, response_class=Zip, responses=errors(400, 404, 410, 408, 413, 422, *GUARDED)
)
def export(
    desk: AtDesk,
    name: Annotated[str, Form(min_length=1, max_length=200, description="What the photos show.")],
    right: Numbers = [],  # noqa: B006 - FastAPI copies it
    wrong: Numbers = [],  # noqa: B006
    photo: Upload | None = None,
) -> Zip:
    """Download marks as a zip that `data=folder` trains on: a folder with the photos marked right, and the query's."""
    query = None
    if photo is not None:
        data = checked_bytes(photo, desk.settings.max_upload)
        query = safe_name(photo.filename or "", check_header(data, desk.settings.max_pixels).suffix), data
    packed = desk.export(name, query, right, wrong)
    file = f"{folder_name(name)}.zip"
    # A header takes ASCII alone; who knows RFC 5987 reads the name itself.
    plain = file.encode("ascii", "replace").decode().replace("?", "_")
    said = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file, safe='')}"
    return Zip(in_chunks(packed), headers={"Content-Disposition": said})


search_router = APIRouter(prefix="/api", tags=["search"], dependencies=TOKEN)


@search_router.post("/search", dependencies=FORM, responses=errors(400, 408, 413, 422, *GUARDED))
def search(
    desk: AtDesk,
    photo: Upload,
    box: BoxField = "",
    top: Annotated[models.Top, Form()] = 20,
    where: WhereField = [],  # noqa: B006 - FastAPI copies it
    verify: Annotated[bool, Form(description="Order the first answers by matching local features.")] = False,
) -> models.Found:
    """Search the library for what a photo shows."""
    start = time.monotonic()
    data = checked_bytes(photo, desk.settings.max_upload)
    descriptor, answers = desk.search(data, read_part(box), top, read_where(where), verify)
    return models.Found(
        answers=shown_answers(answers), descriptor=as_text(descriptor), seconds=time.monotonic() - start
    )


@search_router.post("/rerank", responses=errors(400, 408, 413, 422, *GUARDED))
def rerank(desk: AtDesk, asked: models.Rerank) -> models.Found:
    """Search again with the query moved towards what was marked right and away from what was marked wrong.

    Photos marked right come first, those marked wrong last.
    """
    start = time.monotonic()
    query = read_descriptor(asked.descriptor, desk.finder.library.identity["dim"])
    right = list(dict.fromkeys(asked.right))
    wrong = [number for number in dict.fromkeys(asked.wrong) if number not in right]
    answers = desk.rerank(query, right, wrong, asked.top, asked.where)
    return models.Found(
        answers=shown_answers(answers, right, wrong), descriptor=asked.descriptor, seconds=time.monotonic() - start
    )


@search_router.post("/explain", dependencies=FORM, responses=errors(400, 404, 410, 408, 413, 422, *GUARDED))
def explain(
    desk: AtDesk,
    photo: Upload,
    id: Annotated[models.Number, Form()],
    box: BoxField = "",
) -> models.Explained:
    """Say why a photo of the library is found for a query: matching local features, attention, terms of the cosine."""
    data = checked_bytes(photo, desk.settings.max_upload)
    return shown_explanation(desk.explain(data, read_part(box), id))

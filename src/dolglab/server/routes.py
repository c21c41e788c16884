"""The routes of the REST API and of the pages. They parse requests, call `SearchService` and serialise its results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, File, Form, Header, HTTPException, Query, Request, Response, UploadFile
from fastapi import Path as PathParam
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer

from dolglab.data.photos import Box, read_box
from dolglab.library.filters import parse_filters
from dolglab.server import schemas
from dolglab.server.map_answer import PhotoMap
from dolglab.server.photo_files import folder_name, iterate_chunks, read_photo, safe_name
from dolglab.server.service import SearchQuery, SearchService
from dolglab.templates import template

REASONS = {
    400: "An invalid photo, box, filter or other field; the message says which.",
    401: "The token is missing or wrong.",
    403: "Forbidden for this origin, or disabled on this server.",
    404: "No such photo, folder or map.",
    408: "The request was not received completely.",
    409: "The result is not ready. Try again in a moment.",
    410: "The photo's file is missing, or has changed since it was embedded.",
    413: "Too many bytes or pixels, or decoding takes too long.",
    422: "A field is missing or has the wrong type.",
    429: "Too many requests from this client; `Retry-After` gives the time to wait.",
    503: "Too many simultaneous requests, or the library is locked; `Retry-After` gives the time to wait.",
    507: "The photo cannot be written to disk.",
}
# Statuses with which the middleware may answer on any route.
GUARDED = (401, 403, 429, 503)


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route for the OpenAPI description."""
    # With `model`, FastAPI would declare errors with the route's own media type, such as image/jpeg.
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": REASONS[status], "content": content} for status in sorted(statuses)}


def attachment(file: str) -> dict[str, str]:
    """The header of a download under a file name."""
    # Plain header parameters are ASCII; RFC 5987 encodes the full name.
    plain = file.encode("ascii", "replace").decode().replace("?", "_")
    return {"Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file, safe='')}"}


def _service(request: Request) -> SearchService:
    state = request.app.state
    state.service = state.service.current()
    return state.service


def _parse_box(text: str) -> Box | None:
    return read_box(text) if text.strip() else None


def _read_query(service: SearchService, photo: UploadFile | None, like: int | None, box: str) -> SearchQuery:
    data = None if photo is None else schemas.read_upload(photo, service.settings.max_upload)
    return service.query(data, like, _parse_box(box))


async def _refuse_unknown_fields(request: Request) -> None:
    """Raise HTTPException 422 for a form field that the route does not have; FastAPI would ignore it silently."""
    known = [field.alias for field in request.scope["route"].dependant.body_params]
    for name in await request.form():
        if name not in known:
            raise HTTPException(422, f"unknown field {name}: the fields are {', '.join(known)}")


# For the OpenAPI description only: the middleware checks the token before a body is read.
TOKEN = [Depends(HTTPBearer(auto_error=False, description="Required if the server has a token."))]
# For routes that take a form.
FORM = [Depends(_refuse_unknown_fields)]

WHERE = f"COLUMN=VALUE. {schemas.WHERE}."
BOX = "Only this part: x1,y1,x2,y2 in pixels of the upright photo; for `like`, relative to its `width` and `height`."
Service = Annotated[SearchService, Depends(_service)]
Upload = Annotated[UploadFile, File(description=f"An image file: {schemas.FORMATS}.")]
PhotoField = Annotated[UploadFile | None, File(description=f"The query, an image file: {schemas.FORMATS}.")]
LikeField = Annotated[schemas.Number | None, Form(description="Instead of `photo`: the id of a photo of the library.")]
BoxField = Annotated[str, Form(description=BOX)]
FolderField = Annotated[str, Form(description="Only photos below this folder, see /api/folders.")]
WhereField = Annotated[list[str], Form(description=WHERE)]
Id = Annotated[int, PathParam(ge=1, le=schemas.MAX_ID, description="The id of a photo in the library.")]
Containing = Annotated[str, Query(max_length=200, description="Only entries that contain this text.")]
Limit = Annotated[int, Query(ge=1, le=schemas.MAX_LISTED, description="Maximum number of entries.")]
Numbers = Annotated[list[schemas.Number], Form(max_length=schemas.MAX_MARKS)]

search_router = APIRouter(prefix="/api", tags=["search"], dependencies=TOKEN)
photo_router = APIRouter(prefix="/api", tags=["photos"], dependencies=TOKEN)
server_router = APIRouter(prefix="/api", tags=["server"])
page_router = APIRouter(include_in_schema=False)
ROUTERS = (search_router, photo_router, server_router, page_router)

PICTURE_HEADERS = {"Cache-Control": "private, max-age=300"}
# Columns with more values than this are described without them.
MAX_VALUES = 50
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
PAGE = Path(__file__).parent / "page"
PAGE_FILES = {
    path.name: (path.read_bytes(), MEDIA_TYPES[path.suffix]) for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES
}


class Jpeg(Response):
    """A JPEG response."""

    media_type = "image/jpeg"


class Zip(StreamingResponse):
    """A zip archive, streamed."""

    media_type = "application/zip"


class Prometheus(Response):
    """Prometheus's text format."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"


@search_router.post("/search", dependencies=FORM, responses=errors(400, 404, 410, 408, 413, 422, *GUARDED))
def search(
    service: Service,
    photo: PhotoField = None,
    like: LikeField = None,
    box: BoxField = "",
    top: Annotated[schemas.Top, Form()] = 20,
    where: WhereField = [],  # noqa: B006 - FastAPI copies it
    folder: FolderField = "",
    verify: Annotated[bool, Form(description="Re-rank the top answers by matching local features.")] = False,
    exact: Annotated[schemas.Exact, Form()] = False,
) -> schemas.Found:
    """Search the library for photos similar to an uploaded one, or to one of the library, which is left out."""
    start = time.monotonic()
    query = _read_query(service, photo, like, box)
    descriptor, answers = service.search(query, top, parse_filters(where, "where"), folder, verify, exact)
    return schemas.Found(
        answers=schemas.serialize_answers(answers),
        exact=all(answer.exact for answer in answers),
        descriptor=schemas.to_base64(descriptor.astype("<f4").tobytes()),
        seconds=time.monotonic() - start,
    )


@search_router.post("/rerank", responses=errors(400, 404, 408, 413, 422, *GUARDED))
def rerank(service: Service, request: schemas.Rerank) -> schemas.Found:
    """Re-rank with the query moved towards the answers marked right and away from those marked wrong.

    Photos marked right come first, those marked wrong last.
    """
    start = time.monotonic()
    descriptor = schemas.parse_descriptor(request.descriptor, service.finder.library.identity["dim"])
    right = list(dict.fromkeys(request.right))
    wrong = [number for number in dict.fromkeys(request.wrong) if number not in right]
    without = [] if request.like is None else [request.like]
    answers = service.rerank(
        descriptor, right, wrong, request.top, request.where, request.folder, request.exact, without
    )
    return schemas.Found(
        answers=schemas.serialize_answers(answers, right, wrong),
        exact=all(answer.exact for answer in answers),
        descriptor=request.descriptor,
        seconds=time.monotonic() - start,
    )


@search_router.post("/explain", dependencies=FORM, responses=errors(400, 404, 410, 408, 413, 422, *GUARDED))
def explain(
    service: Service,
    id: Annotated[schemas.Number, Form()],
    photo: PhotoField = None,
    like: LikeField = None,
    box: BoxField = "",
    stacked: Annotated[bool, Form(description="Draw the query above the answer instead of beside it.")] = False,
) -> schemas.Explained:
    """Explain why a photo was found for a query: matching local features, attention and the terms of the cosine."""
    return schemas.serialize_explanation(service.explain(_read_query(service, photo, like, box), id, stacked))


@photo_router.get("/photos", responses=errors(400, 404, 422, *GUARDED))
def photos(
    service: Service,
    offset: Annotated[int, Query(ge=0, le=schemas.MAX_ID, description="Photos to skip.")] = 0,
    limit: Limit = 60,
    where: Annotated[list[str], Query(description=WHERE)] = [],  # noqa: B006
    folder: Annotated[str, Query(description="Only photos below this folder, see /api/folders.")] = "",
) -> schemas.PhotoPage:
    """List the searchable photos of the library, page by page, sorted by path."""
    total, found = service.browse(offset, limit, parse_filters(where, "where"), folder)
    return schemas.PhotoPage(total=total, photos=[schemas.serialize_photo(photo) for photo in found])


@photo_router.get("/folders", responses=errors(422, *GUARDED))
def folders(service: Service, containing: Containing = "", limit: Limit = 60) -> schemas.Folders:
    """List the folders of the library's photos, sorted by path. A name is the shortest unambiguous end of a path."""
    found = [schemas.Folder(name=name, photos=count) for name, count in service.folders.find(containing, limit + 1)]
    return schemas.Folders(folders=found[:limit], more=len(found) > limit)


@photo_router.get("/values", responses=errors(400, 422, *GUARDED))
def values(
    service: Service,
    column: Annotated[str, Query(description="A column of the catalogue, see /api/library.")],
    containing: Containing = "",
    limit: Limit = 60,
) -> schemas.Values:
    """List the distinct values of a column, sorted."""
    searched = service.finder.library
    searched.check_filters({column: ""})
    found = searched.catalogue.values(column, limit + 1, containing)
    return schemas.Values(values=found[:limit], more=len(found) > limit)


@photo_router.get("/photos/{id}", responses=errors(404, 422, *GUARDED))
def photo(service: Service, id: Id) -> schemas.Photo:
    """Return the metadata of a photo."""
    return schemas.serialize_photo(service.photo(id))


@photo_router.get("/photos/{id}/thumbnail", response_class=Jpeg, responses=errors(404, 410, 422, *GUARDED))
def thumbnail(service: Service, id: Id) -> Jpeg:
    """Return a thumbnail of a photo, at most 360 pixels on its longer side."""
    return Jpeg(service.thumbnail(id), headers=PICTURE_HEADERS)


@photo_router.get("/photos/{id}/image", response_class=Jpeg, responses=errors(404, 410, 422, *GUARDED))
def image(service: Service, id: Id) -> Jpeg:
    """Return a photo at screen size, at most 1600 pixels on its longer side, without EXIF data."""
    return Jpeg(service.image(id), headers=PICTURE_HEADERS)


@photo_router.get(
    "/map",
    response_model=PhotoMap,
    responses={304: {"description": "The map has not changed."}, **errors(400, 404, 422, *GUARDED)},
)
def photo_map(
    service: Service,
    column: Annotated[str, Query(description="Return this column's values; by default, folders.")] = "",
    if_none_match: Annotated[str, Header(description="The `ETag` of an earlier response.")] = "",
) -> Response:
    """Return the map made by `dolglab library map`: a point per photo, with the photo's folder or value of a column."""
    found = service.map(column)
    headers = {"ETag": found.etag, "Cache-Control": "private, no-cache"}
    if found.etag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type="application/json", headers=headers)


@photo_router.post("/photos", dependencies=FORM, status_code=201, responses=errors(400, 408, 413, 422, 507, *GUARDED))
def add(
    service: Service,
    photo: Upload,
    metadata: Annotated[str, Form(description='Columns: a JSON object of strings, such as {"year": "1901"}.')] = "",
) -> schemas.Photo:
    """Add a photo. Its file is stored in the library's folder `added-photos`, renamed if the name is taken."""
    data = schemas.read_upload(photo, service.settings.max_upload)
    return schemas.serialize_photo(service.add(data, photo.filename or "", schemas.parse_metadata(metadata)))


@photo_router.delete("/photos/{id}", responses=errors(404, 422, *GUARDED))
def remove(service: Service, id: Id) -> schemas.Removed:
    """Remove a photo from the library. Its file is deleted only if it was added through this API.

    Otherwise the next `dolglab embed` of its folder adds it again.
    """
    return schemas.Removed(id=id, deleted=service.remove(id))


@photo_router.post(
    "/marks/export", dependencies=FORM, response_class=Zip, responses=errors(400, 404, 410, 408, 413, 422, *GUARDED)
)
def export(
    service: Service,
    name: Annotated[str, Form(min_length=1, max_length=200, description="What the photos show; names the folder.")],
    right: Numbers = [],  # noqa: B006 - FastAPI copies it
    wrong: Numbers = [],  # noqa: B006
    photo: PhotoField = None,
    like: LikeField = None,
) -> Zip:
    """Download marks as a zip for training with `data=folder`: a folder with the query and the photos marked right."""
    query = None
    if photo is not None:
        data = schemas.read_upload(photo, service.settings.max_upload)
        query = safe_name(photo.filename or "", service.header(data).suffix), data
    elif like is not None:
        known = service.photo(like)
        query = safe_name(known.name, ".jpg"), read_photo(known)
    archive = service.export(name, query, right, wrong)
    return Zip(iterate_chunks(archive), headers=attachment(f"{folder_name(name)}.zip"))


# The errors of one route must use `model`, so that the description contains its schema: see `errors`.
@server_router.get("/health", responses={status: {"model": schemas.Error} for status in (403, 503)})
async def health() -> schemas.Health:
    """Report that the server is running. No token is required."""
    return schemas.Health(status="ok")


@server_router.get("/library", dependencies=TOKEN, responses=errors(*GUARDED))
def library(service: Service) -> schemas.About:
    """Return the size of the library, the columns to filter by, and what this server allows."""
    searched, settings = service.finder.library, service.settings
    values = {name: searched.catalogue.values(name, MAX_VALUES + 1) for name in searched.catalogue.columns()}
    return schemas.About(
        photos=len(searched),
        model=searched.identity["title"] + (", adapted" if searched.identity.get("adapter") else ""),
        columns=[
            schemas.Column(name=name, values=some if len(some) <= MAX_VALUES else None) for name, some in values.items()
        ],
        read_only=service.read_only,
        max_upload_bytes=settings.max_upload,
        max_pixels=settings.max_pixels,
    )


@server_router.get("/metrics", dependencies=TOKEN, response_class=Prometheus, responses=errors(*GUARDED))
def metrics(request: Request) -> Prometheus:
    """Return metrics in Prometheus's text format."""
    return Prometheus(request.app.state.metrics.text())


@page_router.get("/")
async def index() -> Response:
    """The search page."""
    return await page_file("index.html")


@page_router.get("/page/{name}")
async def page_file(name: str) -> Response:
    """A script or style of the pages."""
    if name not in PAGE_FILES:
        raise HTTPException(404, "no such page")
    data, media_type = PAGE_FILES[name]
    return Response(data, media_type=media_type, headers={"Cache-Control": "no-cache"})


@page_router.get("/api")
async def documentation(request: Request) -> Response:
    """The description of the API as a page."""
    openapi = request.app.openapi()
    page = template(PAGE / "api.html.j2").render(
        title=openapi["info"]["title"],
        about=openapi["info"]["description"].strip().split("\n\n"),
        address=str(request.base_url),
        paths=openapi["paths"],
        schemas=openapi["components"]["schemas"],
    )
    return Response(page, media_type="text/html")

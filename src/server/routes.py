"""What the routes share: the desk they ask, and the errors they may answer with."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, File, Form, HTTPException, Request, UploadFile
from fastapi.security import HTTPBearer

from src.library.query import KINDS
from src.server.desk import Desk

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
Upload = Annotated[UploadFile, File(description=f"An image file: {KINDS}.")]
BoxField = Annotated[str, Form(description="Only this part: x1,y1,x2,y2 in pixels of the upright photo.")]
WhereField = Annotated[list[str], Form(description="Only photos with this in a column: COLUMN=VALUE.")]

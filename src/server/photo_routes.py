"""The library's photos: pictures of them, new ones, and taking them out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Path, Response
from fastapi.responses import StreamingResponse

from src.server import models
from src.server.additions import safe_name
from src.server.forms import read_metadata
from src.server.limits import check_header
from src.server.marks import folder_name, in_chunks
from src.server.routes import FORM, GUARDED, TOKEN, AtDesk, Upload, checked_bytes, errors
from src.server.shown import shown_photo

router = APIRouter(prefix="/api", tags=["photos"], dependencies=TOKEN)

Id = Annotated[int, Path(ge=1, le=models.LARGEST, description="A photo's number in the library.")]
Numbers = Annotated[list[models.Number], Form(max_length=models.MOST_MARKS)]
KEPT = {"Cache-Control": "private, max-age=300"}


class Jpeg(Response):
    """A picture."""

    media_type = "image/jpeg"


class Zip(StreamingResponse):
    """An archive."""

    media_type = "application/zip"


@router.get("/photos/{id}", responses=errors(404, 422, *GUARDED))
def photo(desk: AtDesk, id: Id) -> models.Photo:
    """What the library knows about a photo."""
    return shown_photo(desk.photo(id))


@router.get("/photos/{id}/thumbnail", response_class=Jpeg, responses=errors(404, 410, 422, *GUARDED))
def thumbnail(desk: AtDesk, id: Id) -> Jpeg:
    """A small picture of a photo, at most 360 pixels a side."""
    return Jpeg(desk.pictures.small(desk.photo(id)), headers=KEPT)


@router.get("/photos/{id}/image", response_class=Jpeg, responses=errors(404, 410, 422, *GUARDED))
def image(desk: AtDesk, id: Id) -> Jpeg:
    """A photo for a screen, at most 1600 pixels a side, without what its file says about place and camera."""
    return Jpeg(desk.pictures.large(desk.photo(id)), headers=KEPT)


@router.post("/photos", dependencies=FORM, status_code=201, responses=errors(400, 408, 413, 422, 507, *GUARDED))
def add(
    desk: AtDesk,
    photo: Upload,
    metadata: Annotated[str, Form(description='Columns: a JSON object of strings, such as {"year": "1901"}.')] = "",
) -> models.Photo:
    """Add a photo: its file is kept in the library's folder `added-photos`, under its name or one like it."""
    data = checked_bytes(photo, desk.settings.max_upload)
    return shown_photo(desk.add(data, photo.filename or "", read_metadata(metadata)))


@router.delete("/photos/{id}", responses=errors(404, 422, *GUARDED))
def remove(desk: AtDesk, id: Id) -> models.Removed:
    """Take a photo out of the library. Its file is deleted only where it was added here.

    Of a folder that was embedded, the next `src.embed` of that folder takes the photo in again.
    """
    return models.Removed(id=id, deleted=desk.remove(id))


@router.post(
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

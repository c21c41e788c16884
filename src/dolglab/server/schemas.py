"""The schemas of the REST API, and parsing and validation of uploads and form fields."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Literal

import numpy as np
from fastapi import HTTPException, UploadFile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dolglab.data.image_errors import (
    BrokenImageError,
    MissingReaderError,
    NoImageError,
    TooLargeError,
    UnsupportedImageError,
    reason,
)
from dolglab.data.image_formats import Header, read_header
from dolglab.errors import UserError
from dolglab.io import is_utf8
from dolglab.library import contents
from dolglab.library.explain import Explanation
from dolglab.library.naming import printable

# The supported image formats, as shown to users.
FORMATS = "JPEG, PNG, WebP, AVIF, JPEG 2000, TIFF, GIF or BMP"
# Limits of a photo's metadata: number of columns, characters of a column's name and of a value.
MAX_COLUMNS, MAX_KEY, MAX_VALUE = 50, 100, 1000
# The largest id of a photo is SQLite's largest integer.
MAX_ID = 2**63 - 1
MAX_ANSWERS, MAX_MARKS, MAX_LISTED = 100, 200, 200

WHERE = "Only photos with these values; numbers and dates may be ranges LOW..HIGH, such as 2019-05..2019-08"

Number = Annotated[int, Field(ge=1, le=MAX_ID, description="The id of a photo in the library.")]
Top = Annotated[int, Field(ge=1, le=MAX_ANSWERS, description="Maximum number of answers.")]
Exact = Annotated[bool, Field(description="Compare with every photo instead of using the index of a large library.")]
Mark = Literal["right", "wrong"]


class Error(BaseModel):
    """An error."""

    error: str = Field(description="A one-line message.")


class Health(BaseModel):
    """The state of the server."""

    status: Literal["ok"]


class Column(BaseModel):
    """A column of the catalogue, for filters."""

    name: str
    values: list[str] | None = Field(description="Its distinct values; null if there are more than 50.")


class About(BaseModel):
    """The library and the limits of this server."""

    photos: int = Field(description="Number of searchable photos.")
    model: str = Field(description="The network that computes the descriptors.")
    columns: list[Column]
    read_only: bool = Field(description="Photos cannot be added or removed.")
    max_upload_bytes: int
    max_pixels: int


class Photo(BaseModel):
    """A photo of the library."""

    id: Number
    name: str = Field(description="The file name and its folder; the rest of the path is not disclosed.")
    width: int | None = Field(description="Width in pixels when the photo was embedded.")
    height: int | None
    metadata: dict[str, str]


class PhotoPage(BaseModel):
    """A page of the photos of the library, sorted by path."""

    total: int = Field(description="Number of matching photos on all pages.")
    photos: list[Photo]


class Folder(BaseModel):
    """A folder with photos."""

    name: str = Field(description="The shortest unambiguous end of its path.")
    photos: int = Field(description="Number of searchable photos below it.")


class Folders(BaseModel):
    """Folders, sorted by path."""

    folders: list[Folder]
    more: bool = Field(description="There are more folders than these.")


class Values(BaseModel):
    """Distinct values of a column, sorted."""

    values: list[str]
    more: bool = Field(description="There are more values than these.")


class Answer(Photo):
    """A photo that was found."""

    rank: int
    cosine: float = Field(description="Cosine similarity to the query; after re-ranking, to the adjusted query.")
    inliers: int | None = Field(description="Local features that fit one transformation; null if not verified.")
    there: bool = Field(description="Whether its file still exists.")
    mark: Mark | None = Field(default=None, description="Its mark.")


class Found(BaseModel):
    """The result of a search."""

    answers: list[Answer]
    exact: bool = Field(description="All photos were compared, not only candidates from an index.")
    descriptor: str = Field(description="The query's descriptor, float32 in base64, for /api/rerank.")
    seconds: float = Field(description="Duration of the search.")


class Rerank(BaseModel):
    """A query's descriptor and the marks of its answers."""

    model_config = ConfigDict(extra="forbid")

    descriptor: str = Field(max_length=200_000, description="The descriptor returned by /api/search.")
    right: list[Number] = Field(default=[], max_length=MAX_MARKS, description="Ids of photos that show the same.")
    wrong: list[Number] = Field(default=[], max_length=MAX_MARKS, description="Ids of photos that do not.")
    top: Top = 20
    exact: Exact = False
    where: dict[str, str] = Field(default={}, description=f"{WHERE}, by column.")
    folder: str = Field(default="", description="Only photos below this folder, see /api/folders.")
    like: Number | None = Field(default=None, description="The id of the query photo, to leave out.")


class Terms(BaseModel):
    """The terms whose sum is the cosine; null for those that the network does not have."""

    global_: float = Field(serialization_alias="global", description="Global part with global part.")
    local: float | None = Field(description="Local part with local part.")
    cross: float | None = Field(description="Global part with local part, both ways.")
    bias: float | None = Field(description="Products with the bias of the last layer.")


class Explained(BaseModel):
    """Why a photo was found. Pictures are JPEGs in base64."""

    matches: int = Field(description="Number of matching local features.")
    inliers: int = Field(description="Number of matches that fit one transformation.")
    terms: Terms | None = Field(description="null if the network's descriptor has no global and local parts.")
    features: str = Field(description="Name of the local features.")
    picture: str = Field(description="The inliers, drawn from the query to the answer.")
    attention: tuple[str, str] = Field(description="The attention maps of the query and of the answer.")


class Removed(BaseModel):
    """A photo that is no longer in the library."""

    id: Number
    deleted: bool = Field(description="Whether its file was deleted too, as only files added through this API are.")


def short_name(path: str) -> str:
    """A photo's file name and folder; the rest of the path is not disclosed to clients.

    >>> short_name("/srv/photos/paris/a.jpg")
    'paris/a.jpg'
    """
    return printable("/".join(path.rsplit("/", 2)[-2:]))


def serialize_photo(photo: contents.Photo) -> Photo:
    """A photo as clients get it."""
    height, width = photo.shape or (None, None)
    assert photo.id is not None
    name, metadata = short_name(photo.name), dict(photo.metadata)
    return Photo(id=photo.id, name=name, width=width, height=height, metadata=metadata)


def serialize_answers(
    answers: Sequence[contents.Answer], right: Collection[int] = (), wrong: Collection[int] = ()
) -> list[Answer]:
    """Answers, best first, with the marks of the ids in `right` and `wrong`."""
    marks: dict[int | None, Mark] = {**dict.fromkeys(wrong, "wrong"), **dict.fromkeys(right, "right")}
    return [
        Answer(
            **serialize_photo(answer.photo).model_dump(),
            rank=rank,
            cosine=min(answer.cosine, 1.0),
            inliers=answer.inliers,
            there=answer.there,
            mark=marks.get(answer.photo.id),
        )
        for rank, answer in enumerate(answers, 1)
    ]


def serialize_explanation(found: Explanation) -> Explained:
    """An explanation as clients get it."""
    query, answer = map(to_base64, found.attention)
    return Explained(
        matches=found.matches,
        inliers=found.inliers,
        features=found.features,
        terms=None if found.terms is None else Terms(**found.terms._asdict()),
        picture=to_base64(found.picture),
        attention=(query, answer),
    )


def to_base64(data: bytes) -> str:
    """Encode bytes as base64 text."""
    return base64.b64encode(data).decode()


def read_upload(photo: UploadFile, max_bytes: int) -> bytes:
    """The bytes of an uploaded photo. Raises HTTPException 413 for more than `max_bytes`."""
    if photo.size is not None and photo.size > max_bytes:
        raise HTTPException(413, f"the photo is larger than {max_bytes / 1e6:g} MB: send a smaller one")
    return photo.file.read()


def check_header(data: bytes, max_pixels: int, read: Callable[[bytes], Header] = read_header) -> Header:
    """Read an encoded photo's header with `read` and check it, before any pixel is decoded.

    Raises UserError for anything but a photo, and HTTPException 413 for more than `max_pixels` or the reader's limit.
    """
    if not data:
        raise UserError("the photo is empty: zero bytes")
    try:
        header = read(data)
    except NoImageError:
        raise UserError(f"not an image in a supported format: send a {FORMATS} file") from None
    except TooLargeError:
        raise HTTPException(413, f"the photo has more than {max_pixels / 1e6:g} megapixels: make it smaller") from None
    except MissingReaderError as error:
        why = f"its reader is not installed on this server ({reason(error)})"
        raise UserError(f"the photo cannot be read: {why}") from None
    except UnsupportedImageError as error:
        raise UserError(f"the photo cannot be read: {reason(error)}") from None
    except BrokenImageError:
        # The messages of parsers mean nothing to users.
        raise UserError("the photo cannot be read: it is damaged") from None
    pixels = header.width * header.height
    if pixels > max_pixels:
        raise HTTPException(
            413, f"the photo has {pixels / 1e6:.1f} megapixels, more than {max_pixels / 1e6:g}: make it smaller"
        )
    return header


def parse_metadata(text: str) -> dict[str, str]:
    """A photo's columns, from a JSON object of strings. Raises UserError for anything else."""
    try:
        columns = json.loads(text or "{}")
    except (ValueError, RecursionError):
        columns = None
    if not isinstance(columns, dict) or not all(isinstance(value, str) for value in columns.values()):
        raise UserError('metadata must be a JSON object of strings, such as {"year": "1901"}')
    if len(columns) > MAX_COLUMNS:
        raise UserError(f"metadata has {len(columns)} columns, more than {MAX_COLUMNS}")
    for key, value in columns.items():
        # A quote or a backslash would end the name in SQLite's JSON paths.
        if not 0 < len(key) <= MAX_KEY or not key.isprintable() or set(key) & set('"\\'):
            raise UserError(f"a column's name has 1 to {MAX_KEY} characters without quotes or backslashes, not {key}")
        if len(value) > MAX_VALUE or "\0" in value or not is_utf8(value):
            raise UserError(f"the value of column {key} must be text of at most {MAX_VALUE} characters")
    return columns


def parse_descriptor(text: str, dim: int) -> NDArray[np.float32]:
    """A descriptor, (dim,), L2-normalised, from little-endian float32 in base64. Raises UserError for anything else."""
    try:
        found = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        found = np.empty(0, np.float32)
    with np.errstate(all="ignore"):
        norm = np.linalg.norm(found.astype(np.float64))
    if found.shape != (dim,) or not np.isfinite(norm) or norm == 0:
        raise UserError(f"the descriptor must be that of an /api/search response: {dim} float32 values in base64")
    return (found / norm).astype(np.float32)

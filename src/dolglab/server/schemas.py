"""What clients send and are answered: the JSON of the REST API, and uploads and fields of forms, checked and parsed."""

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

# The formats of photos that are read, for a person.
FORMATS = "JPEG, PNG, WebP, AVIF, JPEG 2000, TIFF, GIF or BMP"
# Of a photo's metadata: columns, and characters of a column's name and of its value.
MAX_COLUMNS, MAX_KEY, MAX_VALUE = 50, 100, 1000
# The largest number of a photo is SQLite's.
MAX_ID = 2**63 - 1
MAX_ANSWERS, MAX_MARKS, MAX_LISTED = 100, 200, 200

Number = Annotated[int, Field(ge=1, le=MAX_ID, description="A photo's number in the library.")]
Top = Annotated[int, Field(ge=1, le=MAX_ANSWERS, description="Answers wanted.")]
Exact = Annotated[bool, Field(description="Compare all photos, also of a large library.")]
Mark = Literal["right", "wrong"]


class Error(BaseModel):
    """What went wrong."""

    error: str = Field(description="One line for a person.")


class Health(BaseModel):
    """Whether the server answers."""

    status: Literal["ok"]


class Column(BaseModel):
    """A column of the catalogue that searches can be filtered by."""

    name: str
    values: list[str] | None = Field(description="Its values, where they are few; null where they are many.")


class About(BaseModel):
    """The library, and what this server allows."""

    photos: int = Field(description="Photos that can be found.")
    model: str = Field(description="The network that describes photos.")
    columns: list[Column]
    read_only: bool = Field(description="Photos are neither added nor removed.")
    max_upload_bytes: int
    max_pixels: int


class Photo(BaseModel):
    """A photo of the library."""

    id: Number
    name: str = Field(description="Its file's name and folder; the rest of the path stays here.")
    width: int | None = Field(description="Pixels, as it was described.")
    height: int | None
    metadata: dict[str, str]


class PhotoPage(BaseModel):
    """A part of the photos of the library, by their names."""

    total: int = Field(description="Photos that pass, on all pages.")
    photos: list[Photo]


class Folder(BaseModel):
    """A folder with photos."""

    name: str = Field(description="As much of the end of its path as tells it from others.")
    photos: int = Field(description="Photos below it that can be found.")


class Folders(BaseModel):
    """Folders, by their paths."""

    folders: list[Folder]
    more: bool = Field(description="There are more than these.")


class Values(BaseModel):
    """Values of a column, in their order."""

    values: list[str]
    more: bool = Field(description="There are more than these.")


class Answer(Photo):
    """A photo that was found."""

    rank: int
    cosine: float = Field(description="Of its descriptor and the query's; re-ranked: the moved query's.")
    inliers: int | None = Field(description="Local features that one transformation brings over; null: not verified.")
    there: bool = Field(description="Whether its file is still there.")
    mark: Mark | None = Field(default=None, description="What it was marked.")


class Found(BaseModel):
    """What a search gives."""

    answers: list[Answer]
    exact: bool = Field(description="All photos were compared, not those alone that an index proposed.")
    descriptor: str = Field(description="The query's descriptor, float32 in base64, for /api/rerank.")
    seconds: float = Field(description="What it took.")


class Rerank(BaseModel):
    """A query's descriptor and the marks of its answers."""

    model_config = ConfigDict(extra="forbid")

    descriptor: str = Field(max_length=200_000, description="As /api/search gave it.")
    right: list[Number] = Field(default=[], max_length=MAX_MARKS, description="Photos that show the same.")
    wrong: list[Number] = Field(default=[], max_length=MAX_MARKS, description="Photos that do not.")
    top: Top = 20
    exact: Exact = False
    where: dict[str, str] = Field(default={}, description="Only photos with these values, by column.")
    folder: str = Field(default="", description="Only photos below this folder, see /api/folders.")
    like: Number | None = Field(default=None, description="The photo that was searched for, which is no answer.")


class Terms(BaseModel):
    """What the cosine is the sum of."""

    global_: float = Field(serialization_alias="global", description="The global parts with one another.")
    local: float = Field(description="The local parts with one another.")
    cross: float = Field(description="One's global part with the other's local part.")
    bias: float = Field(description="All with the last layer's bias.")


class Explained(BaseModel):
    """Why a photo was found. Pictures are JPEGs in base64."""

    matches: int = Field(description="Local features that match.")
    inliers: int = Field(description="Those of them that one transformation explains.")
    terms: Terms | None = Field(description="null where the network's descriptor is no such sum.")
    features: str = Field(description="What the local features are called.")
    picture: str = Field(description="The inliers, drawn from the query to the answer.")
    attention: tuple[str, str] = Field(description="Where the network looks, in the query and in the answer.")


class Removed(BaseModel):
    """A photo that is no longer in the library."""

    id: Number
    deleted: bool = Field(description="Whether its file went too: only what was added here does.")


def short_name(path: str) -> str:
    """A photo's file name and its folder's; clients are not told the rest of the path.

    >>> short_name("/srv/photos/paris/a.jpg")
    'paris/a.jpg'
    """
    return printable("/".join(path.rsplit("/", 2)[-2:]))


def serialize_photo(photo: contents.Photo) -> Photo:
    """A photo of the library."""
    height, width = photo.shape or (None, None)
    assert photo.id is not None
    name, metadata = short_name(photo.name), dict(photo.metadata)
    return Photo(id=photo.id, name=name, width=width, height=height, metadata=metadata)


def serialize_answers(
    answers: Sequence[contents.Answer], right: Collection[int] = (), wrong: Collection[int] = ()
) -> list[Answer]:
    """Answers, best first, with what the photos of the numbers `right` and `wrong` were marked."""
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
    """Why an answer was found."""
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
    """Bytes as text: JPEGs, and of descriptors little-endian float32, which `parse_descriptor` reads."""
    return base64.b64encode(data).decode()


def read_upload(photo: UploadFile, max_bytes: int) -> bytes:
    """The bytes of an uploaded photo. Raises HTTPException 413 for more than `max_bytes`."""
    if photo.size is not None and photo.size > max_bytes:
        raise HTTPException(413, f"the photo has more than {max_bytes / 1e6:g} MB: send a smaller one")
    return photo.file.read()


def check_header(data: bytes, max_pixels: int, read: Callable[[bytes], Header] = read_header) -> Header:
    """What an encoded photo says of itself, by `read`, before a pixel is decoded.

    Raises UserError for what is no photo, and HTTPException 413 for more than `max_pixels`, or than any is opened with.
    """
    if not data:
        raise UserError("the photo is empty: zero bytes")
    try:
        header = read(data)
    except NoImageError:
        raise UserError(f"this is no photo that can be read: send a {FORMATS} file") from None
    except TooLargeError:
        raise HTTPException(413, f"the photo has more than {max_pixels / 1e6:g} megapixels: make it smaller") from None
    except MissingReaderError as error:
        why = f"its reader is not installed on this server ({reason(error)})"
        raise UserError(f"the photo cannot be read: {why}") from None
    except UnsupportedImageError as error:
        raise UserError(f"the photo cannot be read: {reason(error)}") from None
    except BrokenImageError:
        # Parsers' own words would say nothing to a person.
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
        raise UserError('metadata is a JSON object of strings, such as {"year": "1901"}')
    if len(columns) > MAX_COLUMNS:
        raise UserError(f"metadata has {len(columns)} columns, more than {MAX_COLUMNS}")
    for key, value in columns.items():
        # A quote or a backslash would end the name in SQLite's JSON paths.
        if not 0 < len(key) <= MAX_KEY or not key.isprintable() or set(key) & set('"\\'):
            raise UserError(f"a column's name is up to {MAX_KEY} characters without quotes or backslashes, not {key}")
        if len(value) > MAX_VALUE or "\0" in value or not is_utf8(value):
            raise UserError(f"a column's value is up to {MAX_VALUE} characters of text: {key}")
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
        raise UserError(f"the descriptor is not one that /api/search gave: {dim} float32 in base64")
    return (found / norm).astype(np.float32)

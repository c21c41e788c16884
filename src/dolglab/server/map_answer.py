"""The map of a library as an API response."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from dolglab.library.library import Library
from dolglab.library.photo_map import FILE, read_map
from dolglab.server.folders import short_names
from dolglab.server.schemas import to_base64

# Values with their own code; the others share one.
MAX_VALUES = 10


class MapValue(BaseModel):
    """A value of a column, or a folder, and its number of photos on the map."""

    value: str
    photos: int


class PhotoMap(BaseModel):
    """Positions of photos on the map. Arrays are little-endian in base64, with one row per photo, sorted by id."""

    method: str = Field(description="The method that made the map: pca or umap.")
    explained: list[float] = Field(description="Fraction of the variance explained by each axis; empty for umap.")
    photos: int = Field(description="Number of photos in the library.")
    missing: int = Field(description="Number of photos not on the map: added or changed since it was made.")
    current: bool = Field(description="Whether the library still has the descriptors that the map was made from.")
    ids: str = Field(description="The ids of the photos, uint32.")
    coordinates: str = Field(description="x and y of each photo, float32.")
    values: list[MapValue] = Field(
        description="The most frequent values of the column, or folders, most frequent first."
    )
    other: int = Field(description="Number of photos with any other value.")
    without: int = Field(description="Number of photos without a value.")
    codes: str = Field(
        description="For each photo the index of its value in `values`, uint8. The length of `values` stands for any "
        "other value, one more for none."
    )


class EncodedMap(NamedTuple):
    """A map as JSON, and its ETag."""

    body: bytes
    etag: str


def map_state(library: Library) -> tuple[int, ...]:
    """A key that changes with the library or its map. Raises HTTPException 404 if there is no map."""
    try:
        stat = (library.folder / FILE).stat()
    except FileNotFoundError:
        raise _no_map() from None
    return library.catalogue.version(), stat.st_mtime_ns, stat.st_size, stat.st_ino


def encode_map(library: Library, column: str) -> EncodedMap:
    """The map with the values of a column, or with folders if `column` is empty.

    Raises HTTPException 404 if there is no map, and UserError for a damaged map or an unknown column.
    """
    body = build_map(library, column).model_dump_json().encode()
    return EncodedMap(body, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"')


def build_map(library: Library, column: str) -> PhotoMap:
    """As `encode_map`, before encoding."""
    found = read_map(library.folder)
    if found is None:
        raise _no_map()
    described = library.catalogue.described()
    rows = found.shown(described)
    ids = found.ids[rows]
    values, codes, others = _coded(ids, _values(library, column))
    return PhotoMap(
        method=found.method,
        explained=list(found.explained),
        photos=len(described.ids),
        missing=len(described.ids) - len(rows),
        current=found.is_current(library),
        ids=to_base64(ids.astype("<u4").tobytes()),
        coordinates=to_base64(found.coordinates[rows].astype("<f4").tobytes()),
        values=values,
        other=others,
        without=int(np.count_nonzero(codes == len(values) + 1)),
        codes=to_base64(codes.tobytes()),
    )


def _values(library: Library, column: str) -> Mapping[int, str]:
    """The value of each photo that has one, by id."""
    if not column:
        paths = {number: name.rpartition("/")[0] for number, name in library.catalogue.names_of_described()}
        names = short_names(set(paths.values()))
        return {number: names[path] for number, path in paths.items()}
    library.check_filters({column: ""})
    return dict(library.catalogue.values_of(column))


def _coded(ids: NDArray[np.int64], value_of: Mapping[int, str]) -> tuple[list[MapValue], NDArray[np.uint8], int]:
    """The most frequent values, the code of each photo, (n,), and the number of photos with another value."""
    own = [value_of.get(number) for number in ids.tolist()]
    counts = Counter(value for value in own if value is not None)
    # Ties are broken by value, so that the result is deterministic.
    first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_VALUES]
    places: dict[str | None, int] = {value: place for place, (value, _) in enumerate(first)}
    places[None] = len(first) + 1
    codes = np.fromiter((places.get(value, len(first)) for value in own), np.uint8, len(own))
    values = [MapValue(value=value, photos=count) for value, count in first]
    return values, codes, counts.total() - sum(count for _, count in first)


def _no_map() -> HTTPException:
    return HTTPException(404, "the library has no map: create one with dolglab library map")

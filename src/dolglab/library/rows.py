"""Check rows of the catalogue and convert them. All functions raise DamagedError for invalid rows."""

from __future__ import annotations

import os

from dolglab.library.contents import Entry, Photo, Segment, key_of
from dolglab.library.schema import (
    PHOTO,
    SEGMENT,
    DamagedError,
    Row,
    check_name,
    check_segment,
    check_shape,
    check_strings,
    check_types,
    parse_json,
    value_of,
)


def to_name(row: Row) -> str:
    """A photo's name."""
    return os.fsdecode(check_name(value_of(bytes, row)))


def to_entry(row: Row) -> Entry:
    """A photo, and the key of its descriptor if it has one; the columns are those of `PHOTO`."""
    check_types(row, PHOTO)
    (
        name,
        size,
        changed,
        height,
        width,
        reason,
        metadata,
        ctime,
        digest,
        stored_width,
        stored_height,
        exif,
        number,
        key,
    ) = row
    photo = Photo(
        os.fsdecode(check_name(name)),
        size,
        changed,
        check_shape(height, width),
        reason,
        check_strings(parse_json(metadata)),
        ctime,
        digest,
        check_shape(stored_height, stored_width),
        None if exif is None else check_strings(parse_json(exif)),
        number,
    )
    return photo, key


def to_segment(row: Row) -> tuple[int, Segment | None]:
    """A segment with its number, or the key of a deleted descriptor, which has neither size nor kind."""
    check_types(row, SEGMENT)
    number, size, kind = row
    if size is None and kind is None:
        return number, None
    if size is None or kind is None or not 0 < size < key_of(1):
        raise DamagedError(f"segment {number} has {size} descriptors and an index of kind {kind}")
    return check_segment(number), Segment(size, kind)


def to_place(row: Row) -> tuple[int, float, float] | None:
    """A photo's number, latitude and longitude; None if a metadata table contains values that are no coordinates."""
    check_types(row, (int, str, str))
    try:
        latitude, longitude = float(row[1]), float(row[2])
    except ValueError:
        return None
    return (row[0], latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


def to_described(row: Row) -> tuple[int, int, int]:
    """A photo's number, the time of its last change, and the key of its descriptor."""
    check_types(row, (int, int, int))
    return row[0], row[1], row[2]


def to_numbered_name(row: Row) -> tuple[int, str]:
    """A photo's number and name."""
    check_types(row, (int, bytes))
    return row[0], os.fsdecode(check_name(row[1]))


def to_numbered_value(row: Row) -> tuple[int, str]:
    """A photo's number and its value in a column."""
    check_types(row, (int, str))
    return row[0], row[1]


def to_kept(row: Row) -> tuple[int, bytes]:
    """A photo's number and its packed local features."""
    check_types(row, (int, bytes))
    return row[0], row[1]

"""The schema of a library's catalogue, and checks of opened files, which may be damaged or come from somebody else.

SQLite executes triggers, views and generated columns in a file, so only those of `SCHEMA` are accepted.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from types import NoneType
from typing import Any, TypeVar, get_args

from dolglab.contracts import Colour, Decoding

T = TypeVar("T")

SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE segment (number INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL, kind TEXT NOT NULL);
CREATE TABLE dead (key INTEGER PRIMARY KEY);
CREATE TABLE photo (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    width INTEGER,
    height INTEGER,
    key INTEGER UNIQUE,
    reason TEXT,
    metadata TEXT NOT NULL DEFAULT '{}',
    ctime INTEGER,
    digest BLOB,
    stored_width INTEGER,
    stored_height INTEGER,
    exif TEXT
);
CREATE TABLE field (name TEXT NOT NULL, value TEXT NOT NULL, photo INTEGER NOT NULL, PRIMARY KEY (name, value, photo))
    WITHOUT ROWID;
CREATE INDEX field_of ON field (photo);
CREATE TRIGGER described AFTER UPDATE OF metadata ON photo BEGIN
    DELETE FROM field WHERE photo = OLD.id;
    INSERT INTO field SELECT key, value, NEW.id FROM json_each(NEW.metadata);
END;
CREATE TRIGGER undescribed AFTER DELETE ON photo BEGIN DELETE FROM field WHERE photo = OLD.id; END;
CREATE TRIGGER died AFTER UPDATE OF key ON photo WHEN OLD.key IS NOT NULL AND OLD.key IS NOT NEW.key
    BEGIN INSERT INTO dead VALUES (OLD.key); END;
CREATE TRIGGER gone AFTER DELETE ON photo WHEN OLD.key IS NOT NULL
    BEGIN INSERT INTO dead VALUES (OLD.key); END;
"""
# Added to a library that keeps local features, see `packing`.
KEPT = """
CREATE TABLE kept (photo INTEGER PRIMARY KEY, features BLOB NOT NULL);
CREATE TRIGGER unkept AFTER DELETE ON photo BEGIN DELETE FROM kept WHERE photo = OLD.id; END;
"""
KEPT_OBJECTS = {("table", "kept"), ("trigger", "unkept")}
# Columns added since the first version of this format; older libraries get them with their next change.
LATER = {"ctime": "INTEGER", "digest": "BLOB", "stored_width": "INTEGER", "stored_height": "INTEGER", "exif": "TEXT"}
# Tables that SQLite adds by itself, with their SQL.
OWN = {
    ("table", "sqlite_sequence"): "CREATE TABLE sqlite_sequence(name,seq)",
    ("table", "sqlite_stat1"): "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
    ("table", "sqlite_stat4"): "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
}
# Adapted libraries have their own format: versions without adapters would not adapt queries.
FORMAT, ADAPTED_FORMAT = 3, 4
MOUNTS = "mounts"
# The kind of local features that a library keeps, see `SpatialVerifier.config`.
LOCAL = "local"
# Whether date and place from EXIF become columns; true if a library does not say.
EXIF = "exif"
Row = tuple[Any, ...]
Types = tuple[type | tuple[type, type], ...]
# Types of a photo's row: name, size, changed, height, width, reason, metadata, `LATER`, id, key.
WHOLE, TEXT = (int, NoneType), (str, NoneType)
PHOTO: Types = (bytes, int, int, WHOLE, WHOLE, TEXT, str, WHOLE, (bytes, NoneType), WHOLE, WHOLE, TEXT, int, WHOLE)
# Types of a segment's row: number, size, kind; that of a deleted key has only the first.
SEGMENT: Types = (int, WHOLE, TEXT)
MAX_DIM, MAX_SCALES, MAX_SCALE = 1 << 16, 64, 8.0
MAX_SEGMENT = MAX_SIDE = 1 << 31


class DamagedError(ValueError):
    """A catalogue contains something that this project does not write."""


def check_schema(db: sqlite3.Connection, only: str | None = None) -> None:
    """Raise DamagedError unless tables, indexes, triggers and views are those of `SCHEMA`, with or without `KEPT`.

    With `only` a name, only the object of that name is checked.
    """
    plain = sqlite3.connect(":memory:")
    plain.executescript(SCHEMA + KEPT)
    wanted, found = _objects(plain), _objects(db)
    plain.close()
    if not KEPT_OBJECTS & found.keys():
        wanted = {key: text for key, text in wanted.items() if key not in KEPT_OBJECTS}
    for kind, name in sorted(wanted.keys() | found.keys()):
        if only in (None, name) and wanted.get((kind, name)) != found.get((kind, name)):
            raise DamagedError(f"its {kind} {name} is not what this project writes")


def _objects(db: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """The SQL of each table, index, trigger and view, without `LATER` and with single spaces."""
    found = {}
    for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master"):
        if not (isinstance(kind, str) and isinstance(name, str)):
            raise DamagedError("its tables have no names")
        # Indexes of unique columns have no SQL.
        if sql is not None and OWN.get((kind, name)) != sql:
            text = " ".join(str(sql).split())
            for column, affinity in LATER.items():
                text = re.sub(rf" ?, {column} {affinity}(?= ?[,)])", "", text, count=1)
            found[kind, name] = text.replace(" )", ")")
    return found


def format_of(identity: Mapping[str, Any]) -> int:
    """The format of a library with this identity."""
    return FORMAT if identity.get("adapter") is None else ADAPTED_FORMAT


def about_of(db: sqlite3.Connection, key: str) -> Any:
    """A property of a library; None if it is not set. Raises DamagedError for invalid JSON."""
    row = db.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
    return None if row is None else parse_json(row[0])


def mounts_of(db: sqlite3.Connection) -> list[str]:
    """The mount points in a library, see `Catalogue.mounts`. Raises DamagedError for anything but a list of names."""
    return check_names(about_of(db, MOUNTS) or [])


def keeps_local(db: sqlite3.Connection) -> bool:
    """Whether a library has the table of `KEPT`."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'kept'").fetchone() is not None


def photo_columns(db: sqlite3.Connection, schema: str = "main") -> set[str]:
    """Names of the columns of the table of photos; libraries of earlier versions have fewer."""
    return {row[1] for row in db.execute(f"PRAGMA {schema}.table_info(photo)")}


def parse_json(text: str) -> Any:
    """Parse JSON. Raises DamagedError for a text that is invalid or nested too deeply."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DamagedError(f"invalid JSON: {str(text)[:20]!r}") from error


def check_types(row: Row, types: Types) -> None:
    """Raise DamagedError for a row with values of other types, which any column of SQLite accepts."""
    if not all(map(isinstance, row, types)):
        raise DamagedError(f"a row has values of other types: {str(row)[:80]}")


def value_of(kind: type[T], row: Row) -> T:
    """The only value of a row. Raises DamagedError for another type."""
    check_types(row, (kind,))
    return row[0]


def check_name(name: bytes) -> bytes:
    """A photo's name, unchanged. Raises DamagedError for a name with NUL, which no file can have."""
    if b"\0" in name:
        raise DamagedError(f"the name of a photo contains NUL: {name[:80]!r}")
    return name


def check_shape(height: int | None, width: int | None) -> tuple[int, int] | None:
    """A photo's height and width in pixels, if known. Raises DamagedError for impossible values."""
    if height is None and width is None:
        return None
    if height is None or width is None or not (0 < height < MAX_SIDE and 0 < width < MAX_SIDE):
        raise DamagedError(f"a photo has {width} x {height} pixels")
    return height, width


def check_segment(number: Any) -> int:
    """A segment's number, unchanged. Raises DamagedError for an invalid one."""
    if not isinstance(number, int) or not 0 < number < MAX_SEGMENT:
        raise DamagedError(f"invalid number of a segment: {str(number)[:80]}")
    return number


def check_strings(value: Any, *keys: str) -> dict[str, str]:
    """An object of strings that has these keys, unchanged. Raises DamagedError for anything else."""
    if (
        not isinstance(value, dict)
        or not all(isinstance(each, str) for each in value.values())
        or {*keys} - value.keys()
    ):
        raise DamagedError(f"not an object of strings: {str(value)[:80]}")
    return value


def check_names(value: Any) -> list[str]:
    """A list of strings, unchanged. Raises DamagedError for anything else."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise DamagedError(f"not a list of names: {str(value)[:80]}")
    return value


def check_local(value: Any) -> dict[str, Any] | None:
    """The kind of local features that a library keeps, or None. Raises DamagedError for anything else."""
    if value is not None and not (isinstance(value, dict) and isinstance(value.get("features"), str)):
        raise DamagedError(f"not a kind of local features: {str(value)[:80]}")
    return value


def check_identity(identity: Any) -> dict[str, Any]:
    """A library's identity, completed, see `LoadedExtractor`. Raises DamagedError for an invalid one.

    >>> mine = {"model": "ab", "title": "GeM", "source": "gem.ckpt", "dim": 8, "scales": [1.0], "max_side": 64}
    >>> check_identity(mine)["colour"], check_identity(mine)["decoding"]
    ('ignore', 'full')
    """
    # Earlier versions always ignored colour profiles and decoded photos at full size.
    identity = {"colour": "ignore", "decoding": "full", **identity} if isinstance(identity, dict) else {}
    scales = identity.get("scales")
    well = {
        **{key: isinstance(identity.get(key), str) for key in ("model", "title", "source")},
        "dim": _is_whole(identity.get("dim"), MAX_DIM),
        "max_side": _is_whole(identity.get("max_side"), MAX_SIDE),
        "adapter": isinstance(identity.get("adapter"), str | None),
        "scales": isinstance(scales, list) and 0 < len(scales) <= MAX_SCALES and all(map(_is_scale, scales)),
        **{
            key: identity.get(key) in get_args(choices) for key, choices in (("colour", Colour), ("decoding", Decoding))
        },
    }
    if wrong := [key for key in well if not well[key]]:
        raise DamagedError(f"its identity has an invalid {wrong[0]}: {str(identity.get(wrong[0]))[:80]}")
    return identity


def _is_whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _is_scale(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value <= MAX_SCALE

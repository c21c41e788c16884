"""Contents of a library: photos, answers of a search, and the segments that store descriptors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.data.colour import Pixels
from dolglab.data.image_reading import READ_ALL, Reading
from dolglab.data.photos import PhotoFile, photo_pixels
from dolglab.errors import UserError

# A key is a segment's number followed by a row in this many bits.
ROW_BITS = 32


@dataclass(frozen=True)
class Photo:
    """A photo in the state in which it was read.

    Attributes:
        name: absolute path, or address.
        size: size of the file in bytes.
        changed: modification time of the file in nanoseconds since 1970.
        shape: height and width in pixels at which it was described; None if it could not be read.
        reason: why it could not be read; None if it could.
        metadata: columns from its EXIF and from the user, whose values take precedence.
        ctime: time of the last change of its bytes or status in nanoseconds; None if unknown.
        digest: digest of its bytes, see `digest_of`; None if unknown.
        stored: height and width in pixels of the picture in the file, upright; None if unknown.
        exif: columns from its EXIF, see `exif_columns`; None if it was not read.
        id: its number in the library; None before it is added.
    """

    name: str
    size: int
    changed: int
    shape: tuple[int, int] | None = None
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    ctime: int | None = None
    digest: bytes | None = None
    stored: tuple[int, int] | None = None
    exif: Mapping[str, str] | None = None
    id: int | None = None

    @property
    def given(self) -> dict[str, str]:
        """The columns from the user."""
        own = self.exif or {}
        return {column: value for column, value in self.metadata.items() if own.get(column) != value}

    @property
    def there(self) -> bool:
        """Whether its file still exists; always true in an object store, which is not asked."""
        return "://" in self.name or os.path.isfile(self.name)

    def read(self) -> bytes:
        """The current bytes of its file. Raises the errors of `PhotoFile.read`."""
        return PhotoFile(self.name, self.size, self.changed, stored=True).read()

    def pixels(self, max_side: int, reading: Reading = READ_ALL) -> Pixels:
        """Its current pixels, (H, W, 3), shrunk to `max_side`. Raises UserError like `photo_pixels`."""
        return photo_pixels(self.name, max_side, reading=reading, stored=True)


@dataclass(frozen=True)
class Answer:
    """A photo that a search found.

    Attributes:
        photo: the photo.
        cosine: cosine of its descriptor and the query's.
        inliers: number of matching local features that fit one transformation; None if it was not verified.
        exact: whether all photos were compared with the query, and not only candidates from an index.
    """

    photo: Photo
    cosine: float
    inliers: int | None = None
    exact: bool = True

    @property
    def there(self) -> bool:
        """Whether its file still exists."""
        return self.photo.there


# L2-normalised descriptors, (n, dim), and keys of descriptors, (n,).
Descriptors = NDArray[np.float32]
Keys = NDArray[np.int64]
# Metadata: values by column.
Columns = Mapping[str, str]
# A photo and the key of its descriptor, or None.
Entry = tuple[Photo, int | None]


class Segment(NamedTuple):
    """Descriptors that were written together: their number and the kind of their index."""

    size: int
    kind: str


@dataclass(frozen=True)
class Contents:
    """What can be searched: segments by their numbers, and the keys in them that are deleted, ascending.

    A key consists of a segment's number and a row in it, see `key_of`.
    """

    segments: Mapping[int, Segment]
    dead: Keys

    def __len__(self) -> int:
        return sum(segment.size for segment in self.segments.values()) - len(self.dead)

    def mask(self, number: int, allowed: Keys | None = None) -> NDArray[np.bool_]:
        """Which rows of a segment are not deleted, (size,), and have `allowed` keys, ascending, if given."""
        mask = np.full(self.segments[number].size, allowed is None)
        if allowed is not None:
            mask[self._rows_in(allowed, number)] = True
        mask[self._rows_in(self.dead, number)] = False
        return mask

    def check(self, keys: Keys) -> None:
        """Raise UserError for keys that belong to no segment."""
        keys = np.sort(keys)
        for number in np.unique(keys >> ROW_BITS).tolist():
            if number not in self.segments:
                raise UserError(f"the catalogue is damaged: it refers to segment {number}, which does not exist")
            self._rows_in(keys, number)

    def keys(self, numbers: Iterable[int]) -> Keys:
        """Keys in these segments that are not deleted, (n,): in the order of the segments, and ascending in each."""
        parts = (np.flatnonzero(self.mask(number)) + key_of(number) for number in numbers)
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _rows_in(self, keys: Keys, number: int) -> NDArray[np.int64]:
        """As `rows_in`. Raises UserError for a row that the segment does not have."""
        rows = rows_in(keys, number)
        if len(rows) and rows[-1] >= self.segments[number].size:
            raise UserError(f"the catalogue is damaged: there is no row {rows[-1]} in segment {number}")
        return rows


def upright_size(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The height and width in a file's header, swapped if the described, upright `shape` has the other orientation.

    >>> upright_size((3000, 4000), (1024, 768))
    (4000, 3000)
    """
    turned = (size[0] > size[1]) != (shape[0] > shape[1])
    return (size[1], size[0]) if turned else size


def score_column_of(column: str) -> str:
    """The column with the score of a name given by neighbours (`dolglab library label --write`)."""
    return f"{column} score"


def key_of(number: int, row: int = 0) -> int:
    """The key of a row in a segment."""
    return (number << ROW_BITS) + row


def rows_in(keys: Keys, number: int) -> NDArray[np.int64]:
    """The rows of those keys, ascending, that are in a segment."""
    first, last = np.searchsorted(keys, (key_of(number), key_of(number + 1)))
    return keys[first:last] - key_of(number)

"""What a library holds, and a search finds in it: photos, and the segments that their descriptors lie in."""

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

# A key is the number of a segment and, in so many bits, a row in it.
ROW_BITS = 32


@dataclass(frozen=True)
class Photo:
    """A photo as it was read.

    Attributes:
        name: absolute path, or address.
        size: of the file, in bytes.
        changed: when the file was changed last, in nanoseconds since 1970.
        shape: height and width in pixels, as described; None of one that could not be read.
        reason: why it could not be read; nothing where it could.
        metadata: columns: those of its EXIF, and those that a person gave, which count where both have one.
        ctime: when the system changed its bytes or status last, in nanoseconds; None where that is not known.
        digest: of its bytes, see `digest_of`; None where that is not known.
        stored: height and width in pixels of the file's picture, upright; None where that is not known.
        exif: columns that the file itself says, see `exif_columns`; None where nobody looked.
        id: its number in the library; None before it is there.
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
        """The columns that a person gave."""
        own = self.exif or {}
        return {column: value for column, value in self.metadata.items() if own.get(column) != value}

    @property
    def there(self) -> bool:
        """Whether its file is still where it was; of an object store nobody asks."""
        return "://" in self.name or os.path.isfile(self.name)

    def read(self) -> bytes:
        """Its file's bytes now. Raises as `PhotoFile.read`."""
        return PhotoFile(self.name, self.size, self.changed, stored=True).read()

    def pixels(self, max_side: int, reading: Reading = READ_ALL) -> Pixels:
        """Its pixels now, (H, W, 3), shrunk to `max_side`. Raises UserError as `photo_pixels`."""
        return photo_pixels(self.name, max_side, reading=reading, stored=True)


@dataclass(frozen=True)
class Answer:
    """A photo that a search found.

    Attributes:
        photo: the photo.
        cosine: of its descriptor and the query's.
        inliers: local features of the query that one transformation brings to this photo; None where nobody looked.
        exact: all photos were compared with the query, not those alone that an index proposed.
    """

    photo: Photo
    cosine: float
    inliers: int | None = None
    exact: bool = True

    @property
    def there(self) -> bool:
        """Whether its file is still where it was."""
        return self.photo.there


# L2-normalised descriptors, (n, dim), and the keys of some, (n,).
Descriptors = NDArray[np.float32]
Keys = NDArray[np.int64]
# Values of metadata by their columns.
Columns = Mapping[str, str]
# A photo, and its descriptor's key; None of one without.
Entry = tuple[Photo, int | None]


class Segment(NamedTuple):
    """Descriptors that were added together: how many, and the kind of index over them."""

    size: int
    kind: str


@dataclass(frozen=True)
class Contents:
    """What there is to be searched: segments by their number, and the keys in them that count no longer, ascending.

    A key is a segment's number and a row in it: see `key_of`.
    """

    segments: Mapping[int, Segment]
    dead: Keys

    def __len__(self) -> int:
        return sum(segment.size for segment in self.segments.values()) - len(self.dead)

    def mask(self, number: int, allowed: Keys | None = None) -> NDArray[np.bool_]:
        """Which rows of a segment count, (size,); only `allowed` keys, ascending, where these are given."""
        mask = np.full(self.segments[number].size, allowed is None)
        if allowed is not None:
            mask[self._rows_in(allowed, number)] = True
        mask[self._rows_in(self.dead, number)] = False
        return mask

    def check(self, keys: Keys) -> None:
        """Raise UserError for keys that are no segment's."""
        keys = np.sort(keys)
        for number in np.unique(keys >> ROW_BITS).tolist():
            if number not in self.segments:
                raise UserError(f"the catalogue is damaged: it speaks of segment {number}, which it has not")
            self._rows_in(keys, number)

    def keys(self, numbers: Iterable[int]) -> Keys:
        """Keys in some segments that count, (n,), in the order of these, and ascending in each."""
        parts = (np.flatnonzero(self.mask(number)) + key_of(number) for number in numbers)
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _rows_in(self, keys: Keys, number: int) -> NDArray[np.int64]:
        """As `rows_in`. Raises UserError for a row that the segment has not."""
        rows = rows_in(keys, number)
        if len(rows) and rows[-1] >= self.segments[number].size:
            raise UserError(f"the catalogue is damaged: it speaks of row {rows[-1]} of segment {number}")
        return rows


def upright_size(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """A file's height and width as they stand in its header, turned as the described `shape` is.

    >>> upright_size((3000, 4000), (1024, 768))
    (4000, 3000)
    """
    turned = (size[0] > size[1]) != (shape[0] > shape[1])
    return (size[1], size[0]) if turned else size


def key_of(number: int, row: int = 0) -> int:
    """The key of a row in the segment of that number."""
    return (number << ROW_BITS) + row


def rows_in(keys: Keys, number: int) -> NDArray[np.int64]:
    """Rows of those keys, which are ascending, that are in a segment."""
    first, last = np.searchsorted(keys, (key_of(number), key_of(number + 1)))
    return keys[first:last] - key_of(number)

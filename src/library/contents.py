"""What a library consists of: photos, and segments of descriptors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", int, NDArray[np.int64])
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
        metadata: columns of a catalogue that was joined.
        id: its number in the library; None before it is there.
    """

    name: str
    size: int
    changed: int
    shape: tuple[int, int] | None = None
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    id: int | None = None


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
    dead: NDArray[np.int64]

    def __len__(self) -> int:
        return sum(segment.size for segment in self.segments.values()) - len(self.dead)

    def dead_rows(self, number: int) -> NDArray[np.int64]:
        """Rows of a segment that count no longer, ascending."""
        return rows_in(self.dead, number)

    def live_rows(self, number: int) -> NDArray[np.int64]:
        """Rows of a segment that count, ascending."""
        live = np.ones(self.segments[number].size, np.bool_)
        live[self.dead_rows(number)] = False
        return np.flatnonzero(live)


def key_of(number: int, row: int = 0) -> int:
    """The key of a row in the segment of that number."""
    return (number << ROW_BITS) + row


def number_of(keys: T) -> T:
    """The numbers of the segments that keys are in."""
    return keys >> ROW_BITS


def rows_in(keys: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Rows of those keys, which are ascending, that are in a segment."""
    first, last = np.searchsorted(keys, (key_of(number), key_of(number + 1)))
    return keys[first:last] - key_of(number)

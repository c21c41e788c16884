"""Photographs that are turned otherwise than they state themselves: by a list, or not at all."""

from __future__ import annotations

from collections.abc import Mapping

from dolglab.contracts import ImageSource
from dolglab.data.image_formats import with_orientation

# EXIF's orientations of photographs that are to be turned clockwise, by degrees.
CLOCKWISE = {0: 1, 90: 6, 180: 3, 270: 8}


class OrientedSource:
    """JPEGs of a source, each stating another EXIF orientation than its own, so that whatever reads it turns it so.

    Args:
        source: the images.
        orientations: those of some images, by name.
        default: of the others.
    """

    def __init__(self, source: ImageSource, orientations: Mapping[str, int], default: int = 1) -> None:
        self.source, self.orientations, self.default = source, orientations, default

    def __len__(self) -> int:
        return len(self.source)

    def name(self, position: int) -> str:
        """As the source has it."""
        return self.source.name(position)

    def size(self, position: int) -> int:
        """Bytes of the image as it is kept; 0 where there is none."""
        return self.source.size(position)

    def read(self, position: int) -> bytes:
        """The image with its orientation. Raises OSError."""
        orientation = self.orientations.get(self.name(position), self.default)
        return with_orientation(self.source.read(position), orientation)

"""Images of one shape gathered into groups that go through the network together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from jaxtyping import UInt8
from torch import Tensor

Image = UInt8[Tensor, "_ _ 3"]
Group = list[tuple[int, Image]]
# Pixels that may wait for others of their shape: 200 MB of images.
WAITING = 67_108_864


class ShapeBuckets:
    """Gathers images by shape until a group is worth a pass.

    Args:
        pixels: pixels of a group, one image at least; it bounds the memory of a pass.
        waiting: pixels of all images that wait; beyond it the fullest group goes as it is.
    """

    def __init__(self, pixels: float, waiting: int = WAITING) -> None:
        self.pixels = pixels
        self.waiting = waiting
        self._groups: dict[tuple[int, int], Group] = defaultdict(list)
        self._held = 0

    def add(self, key: int, image: Image) -> Iterator[Group]:
        """Take an image, known by `key`, and give the groups that are to go now."""
        shape = (int(image.shape[0]), int(image.shape[1]))
        area = shape[0] * shape[1]
        self._groups[shape].append((key, image))
        self._held += area
        if (len(self._groups[shape]) + 1) * area > self.pixels:
            yield self._leave(shape)
        while self._held > self.waiting:
            yield self._leave(max(self._groups, key=lambda s: len(self._groups[s]) * s[0] * s[1]))

    def rest(self) -> Iterator[Group]:
        """Everything that still waits, group by group."""
        while self._groups:
            yield self._leave(next(iter(self._groups)))

    def _leave(self, shape: tuple[int, int]) -> Group:
        group = self._groups.pop(shape)
        self._held -= len(group) * shape[0] * shape[1]
        return group

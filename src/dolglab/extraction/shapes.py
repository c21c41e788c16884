"""Group images by shape, so that a network can process them together, and compute their sizes at several scales."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

from dolglab.errors import UserError

# Pixels of a group: larger groups do not fit into a CPU's caches and are slower (experiments/benchmarks/library.py).
CPU_PIXELS, GPU_PIXELS = 600_000, 4_194_304
# With onnxruntime, single photos are as fast or faster, except small ones.
ONNX_PIXELS = 80_000


@runtime_checkable
class Shaped(Protocol):
    """An image as an array or a tensor."""

    @property
    def shape(self) -> Sequence[int]: ...


Image = TypeVar("Image", bound=Shaped)


class ShapeBuckets(Generic[Image]):
    """Groups images (H, W, 3) by shape until a group is large enough for a pass.

    Args:
        pixels: pixels per group (at least one image); bounds the memory of a pass.
        waiting: pixels of all waiting images, by default 200 MB; beyond it, the fullest group is released.
    """

    def __init__(self, pixels: float, waiting: int = 67_108_864) -> None:
        self.pixels = pixels
        self.waiting = waiting
        self._groups: dict[tuple[int, int], list[tuple[int, Image]]] = defaultdict(list)
        self._held = 0

    def add(self, key: int, image: Image) -> Iterator[list[tuple[int, Image]]]:
        """Add an image, named by `key`, and yield the groups that are ready."""
        shape = (int(image.shape[0]), int(image.shape[1]))
        area = shape[0] * shape[1]
        self._groups[shape].append((key, image))
        self._held += area
        if (len(self._groups[shape]) + 1) * area > self.pixels:
            yield self._pop(shape)
        while self._held > self.waiting:
            yield self._pop(max(self._groups, key=lambda s: len(self._groups[s]) * s[0] * s[1]))

    def rest(self) -> Iterator[list[tuple[int, Image]]]:
        """All images that still wait, group by group."""
        while self._groups:
            yield self._pop(next(iter(self._groups)))

    def _pop(self, shape: tuple[int, int]) -> list[tuple[int, Image]]:
        group = self._groups.pop(shape)
        self._held -= len(group) * shape[0] * shape[1]
        return group


def check_protocol(scales: object, resize: object, scale_pooling: object = "mean") -> None:
    """Raise UserError for scales that are not a list of numbers above 0, or an unknown resize or scale_pooling."""
    numbers = isinstance(scales, Sequence) and all(isinstance(scale, int | float) and scale > 0 for scale in scales)
    if not numbers or not scales:
        raise UserError(f"scales must be a list of numbers above 0, such as [0.7071,1.0], not {scales}")
    if resize not in ("released", "antialias"):
        raise UserError(f"resize must be released or antialias, not {resize}")
    if scale_pooling not in ("mean", "max"):
        raise UserError(f"scale_pooling must be mean or max, not {scale_pooling}")


def scaled_sides(sides: Sequence[int], scale: float) -> tuple[int, int]:
    """Height and width after scaling, rounded to whole pixels, at least one.

    >>> scaled_sides((480, 1), 0.3535)
    (170, 1)
    """
    height, width = (max(1, round(side * scale)) for side in sides)
    return height, width

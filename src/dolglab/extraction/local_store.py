"""Local features of a benchmark's images, made when they are wanted and kept as one file an image."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from dolglab.contracts import Benchmark, IntArray, LocalFeatures
from dolglab.errors import UserError
from dolglab.extraction.descriptor_store import ABOUT, FeatureTarget
from dolglab.extraction.extractor import Group, ShapeBuckets
from dolglab.io import write_bytes, write_text

# Images whose features stay in memory.
CACHED_IMAGES = 256
PARTS = ("keypoints", "sizes", "scores", "descriptors")


@runtime_checkable
class LocalExtractor(Protocol):
    """Local features of images of one shape; `needs_network` says whether a network makes them."""

    needs_network: bool

    @property
    def model(self) -> nn.Module | None:
        """The network behind them, where there is one."""
        ...

    def __call__(self, images: Sequence[UInt8[Tensor, "h w 3"]]) -> list[LocalFeatures]: ...

    def config(self) -> dict[str, object]:
        """What decides the features, beside the network's weights, in plain values."""
        ...


class LocalTarget(FeatureTarget):
    """Describes images locally and keeps the features; images that are there already are not described again.

    Args:
        root: folder of all stores.
        benchmark: whose images.
        extractor: how they are described.
        details: what else decides the features: how images are read, the precision (plain values).

    `wanted` are the positions that are to be there; by default those of all images.
    """

    def __init__(
        self, root: str | Path, benchmark: Benchmark, extractor: LocalExtractor, details: Mapping[str, Any]
    ) -> None:
        details = {**extractor.config(), **details}
        super().__init__(root, benchmark, f"{benchmark.name}-local", extractor.model, details)
        self.extractor = extractor
        self.wanted = np.arange(self.images)
        self.features = functools.lru_cache(CACHED_IMAGES)(self._read)

    def create(self) -> None:
        """Make the folder where there is none."""
        write_text(self.folder / ABOUT, json.dumps(self.about, indent=1, ensure_ascii=False) + "\n")

    def missing(self) -> IntArray:
        """Wanted positions without features."""
        available = {int(file.stem) for file in self.folder.glob("*/*.safetensors")}
        return np.array([position for position in self.wanted.tolist() if position not in available], np.int64)

    def buckets(self) -> ShapeBuckets:
        """An image at a time: each is kept as soon as it is described."""
        return ShapeBuckets(1)

    def process(self, group: Group) -> None:
        """Describe images of one shape and keep the features of each."""
        with torch.inference_mode():
            found = self.extractor([image for _, image in group])
        for (position, _), features in zip(group, found, strict=True):
            tensors = {part: np.ascontiguousarray(getattr(features, part)) for part in PARTS}
            write_bytes(self._file(position), save(tensors, {"shape": json.dumps(features.shape)}))

    def bytes_per_image(self) -> float:
        """Mean bytes on disk of the images that are there."""
        sizes = [file.stat().st_size for file in self.folder.glob("*/*.safetensors")]
        return sum(sizes) / len(sizes) if sizes else 0.0

    def _file(self, position: int) -> Path:
        return self.folder / f"{position // 1000:04}" / f"{position:07}.safetensors"

    def _read(self, position: int) -> LocalFeatures:
        """The features at a position. Raises UserError where the file is damaged."""
        file = self._file(position)
        try:
            with safe_open(file, "numpy") as stored:
                tensors = {part: stored.get_tensor(part) for part in PARTS}
                height, width = json.loads(stored.metadata()["shape"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{file} is damaged: delete it, and it is made anew") from error
        return LocalFeatures(shape=(height, width), **tensors)

"""Global descriptors of a benchmark, made by a network and kept in a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from src.contracts import Benchmark
from src.extraction.buckets import Group, ShapeBuckets
from src.extraction.extractor import Extractor
from src.extraction.store import DescriptorStore, add_time, fingerprint, store_folder

FORMAT = 1


class DescriptorSink:
    """Describes images and keeps the descriptors; a run that ends in between goes on from there.

    Args:
        root: folder of all stores.
        benchmark: whose images.
        extractor: how they are described.
        about: what else decides the descriptors: how images are read, the precision (plain values).
    """

    def __init__(self, root: str | Path, benchmark: Benchmark, extractor: Extractor, about: Mapping[str, Any]) -> None:
        self.extractor = extractor
        self.images = len(benchmark.source)
        self.about = {
            "format": FORMAT,
            "benchmark": benchmark.name,
            "digest": benchmark.digest,
            "crop": benchmark.crop,
            "model": fingerprint(extractor.model),
            "scales": list(extractor.scales),
            "resize": extractor.resize,
            "torch": torch.__version__,
            **about,
        }
        self.folder = store_folder(root, benchmark.name, self.about)
        self._store: DescriptorStore | None = None

    @property
    def network(self) -> nn.Module:
        """The descriptor network."""
        return self.extractor.model

    @property
    def store(self) -> DescriptorStore:
        """The store, opened once it is made."""
        if self._store is None:
            self._store = DescriptorStore(self.folder, self.images, self.extractor.model.dim)
        return self._store

    def create(self) -> None:
        """Make the store where there is none."""
        DescriptorStore.create(self.folder, self.images, self.extractor.model.dim, self.about)

    def missing(self) -> NDArray[np.int64]:
        """Positions without a descriptor."""
        return self.store.missing()

    def buckets(self) -> ShapeBuckets:
        """As the extractor groups images."""
        return self.extractor.buckets()

    def take(self, group: Group) -> None:
        """Describe a group and keep it."""
        positions = np.array([position for position, _ in group])
        with torch.inference_mode():
            self.store.put(positions, self.extractor.together([image for _, image in group]))

    def spent(self, images: int, seconds: float) -> None:
        """Kept beside the descriptors."""
        add_time(self.folder, images, seconds)

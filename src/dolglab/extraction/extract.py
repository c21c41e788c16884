"""A benchmark's images through an extractor, over all the trainer's processes, from where the last run ended."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import lightning as L
import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dolglab.contracts import BadImage, Benchmark, ImageBatch, Orientation
from dolglab.data.datasets import BenchmarkImages
from dolglab.processes import gather_all

Image = UInt8[Tensor, "_ _ 3"]
Group = list[tuple[int, Image]]


class ShapeBuckets:
    """Gathers images by shape until a group is worth a pass.

    Args:
        pixels: pixels of a group, one image at least; it bounds the memory of a pass.
        waiting: pixels of all images that wait, 200 MB of them; beyond it the fullest group goes as it is.
    """

    def __init__(self, pixels: float, waiting: int = 67_108_864) -> None:
        self.pixels = pixels
        self.waiting = waiting
        self._groups: dict[tuple[int, int], Group] = defaultdict(list)
        self._held = 0

    def add(self, key: int, image: Image) -> Iterator[Group]:
        """Add an image, named by `key`, and give the groups that are to go now."""
        shape = (int(image.shape[0]), int(image.shape[1]))
        area = shape[0] * shape[1]
        self._groups[shape].append((key, image))
        self._held += area
        if (len(self._groups[shape]) + 1) * area > self.pixels:
            yield self._pop(shape)
        while self._held > self.waiting:
            yield self._pop(max(self._groups, key=lambda s: len(self._groups[s]) * s[0] * s[1]))

    def rest(self) -> Iterator[Group]:
        """Everything that still waits, group by group."""
        while self._groups:
            yield self._pop(next(iter(self._groups)))

    def _pop(self, shape: tuple[int, int]) -> Group:
        group = self._groups.pop(shape)
        self._held -= len(group) * shape[0] * shape[1]
        return group


@dataclass(frozen=True)
class Images:
    """How a benchmark's images are read: see `BenchmarkImages`; `workers` processes decode `batch` images at a time."""

    max_side: int | None = None
    skip_bad: bool = False
    orientation: Orientation = "exif"
    workers: int = 0
    batch: int = 16

    def of(self, benchmark: Benchmark) -> BenchmarkImages:
        """The images, by their positions."""
        return BenchmarkImages(benchmark, self.max_side, self.skip_bad, self.orientation)


@runtime_checkable
class ExtractionTarget(Protocol):
    """What makes something of images and keeps it; `network` has to be on the device, where there is one."""

    network: nn.Module | None

    def create(self) -> None:
        """Make the folder, where there is none yet; called in the main process alone, before the others go on."""
        ...

    def missing(self) -> NDArray[np.int64]:
        """Positions of the images that are still to be processed; called after `create`, in every process."""
        ...

    def buckets(self) -> ShapeBuckets:
        """What gathers images into groups."""
        ...

    def process(self, group: Group) -> None:
        """Describe a group of images of one shape, and keep what they give by their positions."""
        ...

    def record_time(self, images: int, seconds: float) -> None:
        """Note how long images took, reading included, all processes' seconds added up; in the main process alone."""
        ...


class Extraction(L.LightningModule):
    """One pass over the images that a target is still missing.

    Args:
        benchmark: whose images.
        target: what they are for.
        images: how they are read.

    After `trainer.predict`, `bad` names the images that could not be read, in every process.
    """

    def __init__(self, benchmark: Benchmark, target: ExtractionTarget, images: Images) -> None:
        super().__init__()
        self.benchmark = benchmark
        self.target = target
        self.images = images
        self.network = target.network
        self.bad: tuple[BadImage, ...] = ()
        self._bad: list[BadImage] = []
        self._read = 0

    def setup(self, stage: str) -> None:
        """Find out what is missing: all processes see the same images before any of them begins."""
        if self.trainer.is_global_zero:
            self.target.create()
        self.trainer.strategy.barrier("store made")
        self.todo = self.target.missing()
        self.trainer.strategy.barrier("store read")

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Read this process's share of what is missing."""
        images = _ImagesAt(self.images.of(self.benchmark), self.todo)
        return DataLoader(
            images,
            batch_size=self.images.batch,
            sampler=range(self.trainer.global_rank, len(images), self.trainer.world_size),
            num_workers=self.images.workers if len(images) > self.images.batch else 0,
            collate_fn=_identity,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def on_predict_start(self) -> None:
        """Start the clock, with no image waiting."""
        self._buckets = self.target.buckets()
        self._clock = time.perf_counter()

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> int:
        """Process the groups that this batch completes; returns how many images came."""
        self._bad += batch.bad
        self._read += len(batch)
        for position, image in zip(batch.positions.tolist(), batch.images, strict=True):
            for group in self._buckets.add(position, image):
                self.target.process(group)
        return len(batch)

    def on_predict_end(self) -> None:
        """Process what still waits, and bring the processes' results together."""
        # Lightning sets the precision for `predict_step` alone.
        with self.trainer.precision_plugin.forward_context():
            for group in self._buckets.rest():
                self.target.process(group)
        parts = gather_all((self._bad, self._read, time.perf_counter() - self._clock))
        self.bad = tuple(image for bad, _, _ in parts for image in bad)
        if self.trainer.is_global_zero and (read := sum(count for _, count, _ in parts)):
            self.target.record_time(read, sum(seconds for _, _, seconds in parts))

    def transfer_batch_to_device(self, batch: ImageBatch, device: torch.device, dataloader_idx: int) -> ImageBatch:
        """Move a batch without waiting for the copy from page-locked memory, as Lightning's own transfer does."""
        return batch.to(device, non_blocking=device.type == "cuda")


def extract(trainer: L.Trainer, benchmark: Benchmark, target: ExtractionTarget, images: Images) -> tuple[BadImage, ...]:
    """Make what `target` is missing; the images that could not be read are named.

    The trainer must have `use_distributed_sampler=False`: the images are shared out here, without repeats.
    Raises UserError for such an image unless `images.skip_bad`, after what was made is kept.
    """
    extraction = Extraction(benchmark, target, images)
    with warnings.catch_warnings():
        # Where everything is there already.
        warnings.filterwarnings("ignore", ".*across ranks is zero.*")
        trainer.predict(extraction, return_predictions=False)
    return extraction.bad


class _ImagesAt(Dataset[ImageBatch]):
    """The images at some positions, still a whole batch at a time."""

    def __init__(self, images: BenchmarkImages, positions: NDArray[np.int64]) -> None:
        self.images = images
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitems__(self, rows: list[int]) -> ImageBatch:
        return self.images.__getitems__(self.positions[rows].tolist())


def _identity(batch: Any) -> Any:
    """The data set gives whole batches; at module level for loader workers that pickle it."""
    return batch

"""A benchmark's images through a network, over as many processes as the trainer has, from where the last run ended."""

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
import torch.distributed as dist
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dolglab.contracts import BadImage, Benchmark, ImageBatch, Orientation
from dolglab.data.datasets import BenchmarkImages

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
    """What makes something of images and keeps it."""

    @property
    def network(self) -> nn.Module | None:
        """The module that has to be on the device; None where there is none."""
        ...

    def create(self) -> None:
        """Make room, where there is none yet; called in the main process alone, before the others go on."""
        ...

    def missing(self) -> NDArray[np.int64]:
        """Positions of the images that are still to be taken; asked after `create`, in every process."""
        ...

    def buckets(self) -> ShapeBuckets:
        """What gathers images into groups."""
        ...

    def process(self, group: Group) -> None:
        """Describe and keep a group of images of one shape, by their positions."""
        ...

    def record_time(self, images: int, seconds: float) -> None:
        """How long the images took, reading included, with all processes' seconds added up; main process alone."""
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
        self._taken = 0

    def setup(self, stage: str) -> None:
        """All processes see the same images missing before any of them begins."""
        if self.trainer.is_global_zero:
            self.target.create()
        self.trainer.strategy.barrier("store made")
        self.todo = self.target.missing()
        self.trainer.strategy.barrier("store read")

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """This process's share of what is missing."""
        images = _At(self.images.of(self.benchmark), self.todo)
        return DataLoader(
            images,
            batch_size=self.images.batch,
            sampler=range(self.trainer.global_rank, len(images), self.trainer.world_size),
            num_workers=self.images.workers if len(images) > self.images.batch else 0,
            collate_fn=_as_is,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def on_predict_start(self) -> None:
        """Images gather from here on."""
        self._buckets = self.target.buckets()
        self._clock = time.perf_counter()

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> int:
        """Take the groups that this batch completes; how many images came."""
        self._bad += batch.bad
        self._taken += len(batch)
        for position, image in zip(batch.positions.tolist(), batch.images, strict=True):
            for group in self._buckets.add(position, image):
                self.target.process(group)
        return len(batch)

    def on_predict_end(self) -> None:
        """Take what still waits."""
        # Lightning sets the precision for `predict_step` alone.
        with self.trainer.precision_plugin.forward_context():
            for group in self._buckets.rest():
                self.target.process(group)
        parts: list[Any] = [(self._bad, self._taken, time.perf_counter() - self._clock)]
        if dist.is_available() and dist.is_initialized():
            mine, parts = parts[0], [None] * dist.get_world_size()
            dist.all_gather_object(parts, mine)
        self.bad = tuple(image for bad, _, _ in parts for image in bad)
        if self.trainer.is_global_zero and (taken := sum(part[1] for part in parts)):
            self.target.record_time(taken, sum(part[2] for part in parts))

    def transfer_batch_to_device(self, batch: ImageBatch, device: torch.device, dataloader_idx: int) -> ImageBatch:
        """Lightning's own transfer waits for the copy, even from page-locked memory."""
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


class _At(Dataset[ImageBatch]):
    """The images at some positions, still a whole batch at a time."""

    def __init__(self, images: BenchmarkImages, positions: NDArray[np.int64]) -> None:
        self.images = images
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitems__(self, places: list[int]) -> ImageBatch:
        return self.images.__getitems__(self.positions[places].tolist())


def _as_is(batch: Any) -> Any:
    """The data set gives whole batches."""
    return batch

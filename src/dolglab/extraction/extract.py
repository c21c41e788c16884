"""Run a benchmark's images through an extractor, in all processes of a trainer, continuing an interrupted run."""

from __future__ import annotations

import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass

import lightning as L
import torch
from torch.utils.data import DataLoader, Subset, default_convert

from dolglab.contracts import BadImage, Benchmark, ImageBatch
from dolglab.data.datasets import BenchmarkImages
from dolglab.data.image_reading import READ_ALL, Reading
from dolglab.errors import pluralize
from dolglab.extraction.descriptor_store import FeatureTarget
from dolglab.extraction.shared_images import adopt_shared
from dolglab.processes import gather_all, outlast_stop
from dolglab.progress import progress


@dataclass(frozen=True)
class Images:
    """How a benchmark's images are read: see `BenchmarkImages`; `workers` processes decode `batch` images at a time."""

    max_side: int | None = None
    skip_bad: bool = False
    reading: Reading = READ_ALL
    workers: int = 0
    batch: int = 16

    def of(self, benchmark: Benchmark) -> BenchmarkImages:
        """The benchmark's images, by position."""
        return BenchmarkImages(benchmark, self.max_side, self.skip_bad, self.reading)


class Extraction(L.LightningModule):
    """One pass over the images whose features a target is still missing.

    Args:
        benchmark: the benchmark with the images.
        target: computes and keeps the features.
        images: how images are read.

    After `trainer.predict`, `bad` names the images that could not be read, in every process. Where the trainer shows no
    progress of its own, this does: of the main process's share.
    """

    def __init__(self, benchmark: Benchmark, target: FeatureTarget, images: Images) -> None:
        super().__init__()
        self.benchmark = benchmark
        self.target = target
        self.images = images
        self.network = target.network
        self.bad: tuple[BadImage, ...] = ()
        # The bar of `on_predict_start`, closed with the pass, however that ends.
        self.shown = ExitStack()
        self._bad: list[BadImage] = []
        self._read = 0

    def setup(self, stage: str) -> None:
        """Find out what is missing, before any process starts: all must see the same images."""
        if self.trainer.is_global_zero:
            self.target.create()
            self.target.create_keys()
            if adopted := adopt_shared(self.target, self.images.of(self.benchmark)):
                print(f"{self.benchmark.name}: {pluralize(adopted, 'image')} described before, for another benchmark")
        self.trainer.strategy.barrier("store made")
        self.todo = self.target.missing()
        self.trainer.strategy.barrier("store read")

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Read this process's share of the missing images."""
        images = Subset(self.images.of(self.benchmark), self.todo.tolist())
        # The data set returns complete batches, which need no collation.
        return DataLoader(
            images,
            batch_size=self.images.batch,
            sampler=range(self.trainer.global_rank, len(images), self.trainer.world_size),
            num_workers=self.images.workers if len(images) > self.images.batch else 0,
            collate_fn=default_convert,
            worker_init_fn=outlast_stop,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def on_predict_start(self) -> None:
        """Start the clock; no image is waiting."""
        self._buckets = self.target.buckets()
        self._clock = time.perf_counter()
        share = len(range(self.trainer.global_rank, len(self.todo), self.trainer.world_size))
        shown = self.trainer.is_global_zero and self.trainer.progress_bar_callback is None
        self._advance = self.shown.enter_context(progress(f"describing {self.benchmark.name}", share if shown else 0))

    def on_predict_batch_start(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """End after SIGTERM, which Lightning 2.6 only notes while it predicts; features computed so far are kept."""
        if self.trainer.received_sigterm:
            raise SystemExit

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> int:
        """Process the groups that this batch completes; returns the number of images in the batch."""
        self._bad += batch.bad
        self._read += len(batch)
        self.target.keys[batch.positions.numpy()] = batch.keys
        self._advance(len(batch))
        for position, image in zip(batch.positions.tolist(), batch.images, strict=True):
            for group in self._buckets.add(position, image):
                self.target.process(group)
        return len(batch)

    def on_predict_end(self) -> None:
        """Process the images that still wait, and collect the processes' results; end after SIGTERM."""
        # Lightning sets the precision only for `predict_step`.
        with self.trainer.precision_plugin.forward_context():
            for group in self._buckets.rest():
                self.target.process(group)
        parts = gather_all((self._bad, self._read, time.perf_counter() - self._clock))
        self.bad = tuple(image for bad, _, _ in parts for image in bad)
        if self.trainer.is_global_zero and (read := sum(count for _, count, _ in parts)):
            self.target.record_time(read, sum(seconds for _, _, seconds in parts))
        if self.trainer.received_sigterm:
            raise SystemExit

    def transfer_batch_to_device(self, batch: ImageBatch, device: torch.device, dataloader_idx: int) -> ImageBatch:
        """Move a batch without waiting for the copy from page-locked memory, like Lightning's own transfer."""
        return batch.to(device, non_blocking=device.type == "cuda")


def extract(trainer: L.Trainer, benchmark: Benchmark, target: FeatureTarget, images: Images) -> tuple[BadImage, ...]:
    """Compute the features that `target` is missing; returns the images that could not be read.

    The trainer must have `use_distributed_sampler=False`: images are distributed here, without repeats. If an image
    cannot be read, raises UserError unless `images.skip_bad`; features computed so far are kept.
    """
    extraction = Extraction(benchmark, target, images)
    with warnings.catch_warnings(), extraction.shown:
        # Where everything is there already.
        warnings.filterwarnings("ignore", ".*across ranks is zero.*")
        trainer.predict(extraction, return_predictions=False)
    return extraction.bad

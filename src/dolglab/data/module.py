"""The LightningDataModule: training crops, and the benchmarks for validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from dolglab.contracts import Batch, Benchmark, Colour, ImageBatch, Orientation, TrainingSet
from dolglab.data.archive_source import PackedSource, StreamedSource
from dolglab.data.augment import Augmentation
from dolglab.data.datasets import (
    BenchmarkImages,
    EpochLoader,
    EpochSampler,
    TrainingImages,
    check_whole_images,
    draw_chances,
)
from dolglab.data.folder import SplitMode, split_folder
from dolglab.data.gldv2 import HINT, Kind, hold_out, load_gldv2, select
from dolglab.data.image_reading import checked_reading
from dolglab.data.landmark_batches import LandmarkSampler, check_landmarks, count_batches
from dolglab.data.sources import checked_seed
from dolglab.errors import UserError, pluralize, truncate_list
from dolglab.processes import outlast_stop

Benchmarks = Mapping[str, Callable[[], Benchmark] | None]


@dataclass(eq=False, repr=False)
class LandmarkDataModule(L.LightningDataModule):
    """Loaders of training images and benchmarks.

    Args:
        training: labelled images; None for evaluation only.
        validation: benchmarks for selecting checkpoints; the first one decides.
        test: benchmarks that are evaluated once, after training.
        augmentation: crop range and device-side augmentation of training images.
        image_size: side of the training crops in pixels.
        batch_size: global batch over all processes; it must be divisible by their number.
        workers: number of loader processes of each training process.
        seed: seed of order, crops, augmentation and replacements.
        max_side: in evaluation, larger images are shrunk to this many pixels; None does not shrink.
        eval_batch: number of images that extraction decodes at a time.
        on_error: "error" stops an evaluation at an unreadable image, "skip" leaves it out.
        sampling: "uniform" draws each training image once per epoch. "balanced" has as many draws, but each landmark
            equally often; "sqrt" draws landmarks by the square root of their number of images.
        images_per_landmark: number of images of each landmark in a global batch, needed for losses over pairs (see
            `LandmarkSampler`); None draws images independently.
        orientation: "exif" turns images upright by their EXIF data, "ignore" uses them as stored.
        colour: "srgb" converts images from their ICC profiles, "ignore" uses their values as sRGB.
        min_side: training images with a side of fewer pixels count as broken.

    Raises UserError for sizes that do not fit together.
    """

    training: TrainingSet | None
    validation: list[Benchmark]
    test: list[Benchmark]
    augmentation: Augmentation = field(default_factory=Augmentation)
    image_size: int = 512
    batch_size: int = 128
    workers: int = 8
    seed: int = 0
    max_side: int | None = None
    eval_batch: int = 16
    on_error: Literal["error", "skip"] = "error"
    sampling: str = "uniform"
    orientation: Orientation = "exif"
    colour: Colour = "srgb"
    min_side: int = 16
    images_per_landmark: int | None = None

    def __post_init__(self) -> None:
        super().__init__()
        if min(self.image_size, self.batch_size, self.eval_batch) < 1 or self.workers < 0:
            raise UserError("image_size, batch_size and eval_batch must be above 0, workers not below 0")
        check_whole_images(self.max_side, self.on_error)
        checked_seed(self.seed)
        self.reading = checked_reading(self.orientation, self.colour, self.min_side)
        self._chances = self._groups = None
        if self.training is None:
            return
        source = self.training.source
        if len(self.training) < self.batch_size:
            raise UserError(
                f"the {len(self.training)} training images are fewer than one batch of {self.batch_size}: use "
                f"data.batch_size={len(self.training)} or less, or more photos"
            )
        self._chances = draw_chances(self.training.labels, self.sampling)
        if self.images_per_landmark is not None:
            self._check_pairs(self.images_per_landmark)
        if isinstance(source, StreamedSource):
            self._groups = source.groups
        if isinstance(source, PackedSource | StreamedSource) and source.packed_with != self.reading[:2]:
            orientation, colour = source.packed_with
            raise UserError(
                f"the images were packed with orientation={orientation} colour={colour}, not orientation="
                f"{self.orientation} colour={self.colour}"
            )

    @classmethod
    def from_gldv2(
        cls,
        root: str | Path,
        train_csv: str = "train_clean.csv",
        holdout: float = 0.2,
        validation: Benchmarks | None = None,
        test: Benchmarks | None = None,
        hint: str = HINT,
        source: Kind = "auto",
        exclude_landmarks: str | Path | None = None,
        exclude_images: str | Path | Sequence[str | Path] | None = None,
        categories: Mapping[str, object] | None = None,
        category_csv: str = "train_label_to_hierarchical.csv",
        cap: int | None = None,
        packed_url: str | None = None,
        cache_gb: float = 50.0,
        **loading: Any,
    ) -> Self:
        """Google Landmarks v2 (see `load_gldv2`).

        `holdout` is the share of images set aside for validation (see `hold_out`); 0 trains on everything and validates
        on the given benchmarks. `hint` says how to get missing data; `source` is the `kind` of `load_gldv2`, and
        `packed_url` and `cache_gb` are its arguments too. Before the split, these are left out: landmarks and images
        that files list, landmarks of other `categories` (column to value or values of `category_csv`), and images
        beyond `cap` per landmark.
        """
        if packed_url and (holdout or loading.get("sampling", "uniform") != "uniform"):
            raise UserError(
                "data.packed_url needs data.holdout=0 and data.sampling=uniform: other images are in all chunks"
            )
        training = load_gldv2(root, train_csv, hint, source, packed_url, cache_gb)
        seed = loading.get("seed", 0)
        table = Path(root) / category_csv
        training = select(training, exclude_landmarks, exclude_images, categories, table, cap, seed)
        held_out = []
        if holdout:
            training, benchmark = hold_out(training, holdout, seed=seed)
            held_out.append(benchmark)
        return cls(training, held_out + _build_all(validation), _build_all(test), **loading)

    @classmethod
    def from_folder(
        cls,
        root: str | Path,
        split: SplitMode = "photos",
        validation_share: float = 0.2,
        test_share: float = 0.2,
        **loading: Any,
    ) -> Self:
        """A folder with one sub-folder per landmark (see `split_folder`)."""
        training, validation, test = split_folder(
            root, split, validation_share, test_share, seed=loading.get("seed", 0)
        )
        return cls(training, [validation], [test], **loading)

    @property
    def num_classes(self) -> int:
        """The number of training landmarks."""
        return len(self._training.classes)

    @property
    def classes(self) -> list[str]:
        """The landmark of each class."""
        return self._training.classes.tolist()

    @property
    def class_sizes(self) -> torch.Tensor:
        """(num_classes,) the number of training images of each landmark."""
        return torch.bincount(torch.from_numpy(self._training.labels), minlength=self.num_classes)

    @property
    def batches_per_epoch(self) -> int:
        """The number of complete global batches per epoch."""
        if self.images_per_landmark is None:
            return len(self._training) // self.batch_size
        return count_batches(self._training.labels, self._landmarks_per_batch, self.images_per_landmark)

    def digests(self) -> dict[str, Any]:
        """Fingerprints of the labelled training images, their number, and the fingerprint of each benchmark by name."""
        training = hashlib.blake2b(digest_size=8)
        for part in (self._training.ids, self._training.labels):
            training.update(np.ascontiguousarray(part).data)
        return {
            "training": training.hexdigest(),
            "images": len(self._training),
            "validation": {benchmark.name: benchmark.digest for benchmark in self.validation},
            "test": {benchmark.name: benchmark.digest for benchmark in self.test},
        }

    def check(self, world: int) -> None:
        """Check in advance what would stop a training later, for large data after hours.

        Raises UserError for a global batch that is not divisible by `world` processes, and for a validation or test
        image that cannot be read; if `on_error` is "skip", such images are named, and only a set without any readable
        image is refused.
        """
        if self.batch_size % world:
            raise UserError(f"data.batch_size={self.batch_size} is not divisible by {world} processes")
        if self.images_per_landmark is not None:
            check_landmarks(self.batches_per_epoch, self._landmarks_per_batch, self.images_per_landmark, world)
        if self.batch_size // world < 2:
            raise UserError("batch normalisation needs at least 2 images per process: increase data.batch_size")
        for benchmark in (*self.validation, *self.test):
            bad = [image for batch in self._benchmark_loader(benchmark) for image in batch.bad]
            if not bad:
                continue
            count, named = len(benchmark.source), [f"{image.name} ({image.reason})" for image in bad]
            line = f"{benchmark.name}: {len(bad)} of {pluralize(count, 'image')} cannot be read"
            if len(bad) == count:
                raise UserError(f"{line}: {truncate_list(named, 3)}")
            print(f"{line}, left out: {truncate_list(named, 20)}")

    def train_dataloader(self) -> EpochLoader:
        """This process's shares of the global batches; an incomplete last batch is left out."""
        world, rank = self._processes()
        images = TrainingImages(self._training, self.image_size, self.augmentation.crop, self.seed, self.reading)
        return EpochLoader(
            images,
            batch_size=self.batch_size // world,
            sampler=self._sampler(rank, world),
            drop_last=True,
            **self._loader_options(persistent=True),
        )

    def _sampler(self, rank: int, world: int) -> EpochSampler:
        training, epoch = self._training, self._epoch()
        if self.images_per_landmark is None:
            return EpochSampler(len(training), self.seed, rank, world, epoch, self._chances, self._groups)
        return LandmarkSampler(
            self.seed,
            rank,
            world,
            epoch,
            labels=training.labels,
            landmarks=self._landmarks_per_batch,
            images=self.images_per_landmark,
        )

    @property
    def _landmarks_per_batch(self) -> int:
        return self.batch_size // (self.images_per_landmark or 1)

    def _check_pairs(self, images: object) -> None:
        """Raise UserError for an invalid `images_per_landmark`, and for options that cannot be combined with it."""
        if not isinstance(images, int) or images < 2 or self.batch_size % images:
            raise UserError(
                f"data.images_per_landmark must be at least 2 and divide data.batch_size={self.batch_size}, "
                f"not {images}"
            )
        if self.sampling != "uniform" or isinstance(self._training.source, StreamedSource):
            raise UserError("data.images_per_landmark needs data.sampling=uniform, and no data.packed_url")
        check_landmarks(self.batches_per_epoch, self._landmarks_per_batch, images, 1)

    def val_dataloader(self) -> list[DataLoader[ImageBatch]]:
        """A loader for each validation benchmark."""
        return [self._benchmark_loader(benchmark) for benchmark in self.validation]

    def test_dataloader(self) -> list[DataLoader[ImageBatch]]:
        """A loader for each test benchmark."""
        return [self._benchmark_loader(benchmark) for benchmark in self.test]

    def transfer_batch_to_device(
        self, batch: Batch | ImageBatch, device: torch.device, dataloader_idx: int
    ) -> Batch | ImageBatch:
        """Move a batch without waiting: Lightning's own transfer waits for the copy, even from page-locked memory."""
        return batch.to(device, non_blocking=device.type == "cuda")

    @property
    def _training(self) -> TrainingSet:
        if self.training is None:
            raise UserError("this data module has no training data: it is for evaluation only")
        return self.training

    def images_of(self, benchmark: Benchmark) -> BenchmarkImages:
        """A benchmark's images, read with the settings of this module."""
        return BenchmarkImages(benchmark, self.max_side, self.on_error == "skip", self.reading)

    def _benchmark_loader(self, benchmark: Benchmark) -> DataLoader[ImageBatch]:
        world, rank = self._processes()
        images = self.images_of(benchmark)
        # Each image once over all processes, without padding.
        shard = range(rank, len(images), world)
        return DataLoader(images, batch_size=self.eval_batch, sampler=shard, **self._loader_options(persistent=False))

    def _loader_options(self, persistent: bool) -> dict[str, Any]:
        return {
            "num_workers": self.workers,
            "persistent_workers": persistent and self.workers > 0,
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            "collate_fn": _keep_batch,
            # Samples are pure functions of seed, epoch and position, so workers need no seeds.
            "worker_init_fn": outlast_stop,
        }

    def _epoch(self) -> int:
        """The epoch with which Lightning will call `set_epoch`; when resuming, `current_epoch` still lags behind."""
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_progress.current.processed  # pyright: ignore[reportAttributeAccessIssue]

    def _processes(self) -> tuple[int, int]:
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank


def _build_all(benchmarks: Benchmarks | None) -> list[Benchmark]:
    return [build() for build in (benchmarks or {}).values() if build is not None]


def _keep_batch(batch: Batch | ImageBatch) -> Batch | ImageBatch:
    """Collate nothing: the data sets return complete batches."""
    return batch

"""Torch data sets: training crops by (epoch, position), and whole images for extraction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from dolglab.contracts import BadImage, Batch, Benchmark, Crop, ImageBatch, ImageSource, Orientation, TrainingSet
from dolglab.data.augment import NUM_DRAWS
from dolglab.data.image_formats import BrokenImageError, Pixels, reason
from dolglab.data.image_reading import READ_ALL, CropRange, Reading, crop_query, decode, decode_crop, shrink
from dolglab.errors import UserError
from dolglab.io import retry_io

# How many replacements are tried before a training set is called unreadable.
MAX_REPLACEMENTS = 20


class UnreadableError(UserError):
    """Images that cannot be read; one line also when torch puts a worker's traceback before it."""

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


@dataclass(eq=False)
class TrainingImages(Dataset[Batch]):
    """Random crops of a training set, a whole batch at a time.

    A sample's crop, its draws for the device and the replacement of a broken image are pure functions of
    (seed, epoch, sample id): workers, ranks and resumes cannot change them.
    """

    training: TrainingSet
    size: int
    crop: CropRange
    seed: int
    reading: Reading = READ_ALL

    def __len__(self) -> int:
        return len(self.training)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The batch of these (epoch, position) keys. Raises UnreadableError when nothing can be read."""
        images = np.empty((len(keys), self.size, self.size, 3), np.uint8)
        draws = np.empty((len(keys), NUM_DRAWS), np.float32)
        used = np.empty(len(keys), np.int64)
        bad: list[BadImage] = []
        for row, (epoch, position) in enumerate(keys):
            images[row], draws[row], used[row] = self._sample(epoch, position, bad)
        return Batch(
            images=torch.from_numpy(images),
            labels=torch.from_numpy(self.training.labels[used]),
            ids=self.training.ids[used],
            draws=torch.from_numpy(draws),
            bad=tuple(bad),
        )

    def _sample(self, epoch: int, position: int, bad: list[BadImage]) -> tuple[Pixels, np.ndarray, int]:
        sample = int(self.training.ids[position])
        rng = sample_rng(self.seed, epoch, sample)
        draws = rng.random(NUM_DRAWS, np.float32)
        for attempt in range(1, MAX_REPLACEMENTS + 1):
            try:
                data = retry_io(self.training.source.read, position)
                return decode_crop(data, self.crop, self.size, rng, self.reading), draws, position
            except (BrokenImageError, OSError) as error:
                bad.append(BadImage(self.training.source.name(position), reason(error)))
                # A generator of its own: how far the broken image got must not matter.
                rng = sample_rng(self.seed, epoch, sample, attempt)
                position = int(rng.integers(len(self.training)))
        raise UnreadableError(
            f"{MAX_REPLACEMENTS} training images in a row could not be read, the last one "
            f"{bad[-1].name}: {bad[-1].reason}"
        )


def sample_rng(seed: int, epoch: int, sample: int, attempt: int = 0) -> np.random.Generator:
    """The random numbers of one sample in one epoch, and of each attempt to replace it."""
    return np.random.default_rng([seed, epoch, sample, attempt])


class BenchmarkImages(Dataset[ImageBatch]):
    """The images of a benchmark at full resolution: gallery whole, queries cropped to their boxes.

    Crop, then scale: the box is cut out of the photo as it is stored on disk, `max_side` shrinks what was cut out, and
    the extractor's scales are factors of that.

    Args:
        benchmark: its images, queries and crop rule.
        max_side: images larger than this are shrunk to it (by area) after the crop; None keeps every pixel.
        skip_bad: leave unreadable images out (they are listed in the batch) where an error is the rule.
        orientation: "exif" turns images upright as they state, "ignore" takes them as they are stored.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        max_side: int | None = None,
        skip_bad: bool = False,
        orientation: Orientation = "exif",
    ) -> None:
        self.orientation: Orientation = orientation
        self.source: ImageSource = benchmark.source
        self.crop: Crop = benchmark.crop
        self.max_side = max_side
        self.skip_bad = skip_bad
        self.boxes = np.full((len(benchmark.source), 4), np.nan)
        self.boxes[benchmark.queries] = benchmark.boxes

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, positions: Sequence[int]) -> ImageBatch:
        """The images at these positions. Raises UnreadableError naming one, unless `skip_bad`."""
        images: list[torch.Tensor] = []
        read: list[int] = []
        bad: list[BadImage] = []
        for position in positions:
            try:
                images.append(torch.from_numpy(self._pixels(position)))
                read.append(position)
            except (BrokenImageError, OSError) as error:
                bad.append(BadImage(self.source.name(position), reason(error)))
        if bad and not self.skip_bad:
            raise UnreadableError(f"image {bad[0].name} cannot be read: {bad[0].reason} (on_error=skip leaves it out)")
        skipped = [position for position in positions if position not in read]
        return ImageBatch(
            images=tuple(images),
            positions=torch.tensor(read, dtype=torch.int64),
            skipped=torch.tensor(skipped, dtype=torch.int64),
            bad=tuple(bad),
        )

    def _pixels(self, position: int) -> Pixels:
        pixels = decode(retry_io(self.source.read, position), self.orientation)
        return shrink(crop_query(pixels, self.boxes[position], self.crop), self.max_side)


def check_whole_images(max_side: object, on_error: object) -> None:
    """Raise UserError for a limit of pixels, or a rule for unreadable images, that there is not."""
    if max_side is not None and (not isinstance(max_side, int) or max_side < 1):
        raise UserError(f"max_side must be a whole number above 0 or null, not {max_side}")
    if on_error not in ("error", "skip"):
        raise UserError(f"on_error must be error or skip, not {on_error}")

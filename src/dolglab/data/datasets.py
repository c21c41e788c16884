"""Torch data sets: training crops by (epoch, position), and whole images for extraction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

# Decoding imports it when needed; if it is imported here, forked workers share it.
import cv2  # noqa: F401
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from dolglab.contracts import IMAGE_KEY, BadImage, Batch, Benchmark, Crop, ImageBatch, ImageSource, TrainingSet
from dolglab.data.augment import NUM_DRAWS
from dolglab.data.colour import Pixels
from dolglab.data.crops import CropRange
from dolglab.data.image_errors import BrokenImageError, reason
from dolglab.data.image_reading import READ_ALL, Reading, crop_query, decode, decode_crop, shrink
from dolglab.errors import UserError
from dolglab.io import retry_io

# The number of replacements that are tried before a training set counts as unreadable.
MAX_REPLACEMENTS = 20
# The box of an image that is not cropped.
NO_BOX = np.full(4, np.nan)
# How a class's share of the draws grows with its number of images: linearly, not at all, by the square root.
SAMPLING = {"uniform": 1.0, "balanced": 0.0, "sqrt": 0.5}


class UnreadableError(UserError):
    """Images cannot be read; the message stays one line even if torch prepends a worker's traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


@dataclass(eq=False)
class TrainingImages(Dataset[Batch]):
    """Random crops of a training set, a batch at a time.

    A sample's crop, its random numbers for the augmentation, and the replacement of a broken image are pure functions
    of (seed, epoch, sample id): they do not depend on workers, ranks or resuming.
    """

    training: TrainingSet
    size: int
    crop: CropRange
    seed: int
    reading: Reading = READ_ALL

    def __len__(self) -> int:
        return len(self.training)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The batch of these (epoch, position) keys. Raises UnreadableError if no image can be read."""
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
                # A new generator, so that the numbers do not depend on how far the broken image got.
                rng = sample_rng(self.seed, epoch, sample, attempt)
                position = int(rng.integers(len(self.training)))
        raise UnreadableError(
            f"{MAX_REPLACEMENTS} training images in a row could not be read, the last one "
            f"{bad[-1].name}: {bad[-1].reason}"
        )


def sample_rng(seed: int, epoch: int, sample: int, attempt: int = 0) -> np.random.Generator:
    """The random numbers of one sample in one epoch, and of each attempt to replace it."""
    return np.random.default_rng([seed, epoch, sample, attempt])


def draw_chances(labels: NDArray[np.int64], sampling: str) -> NDArray[np.float64] | None:
    """Each sample's probability of being drawn, (N,), summing to 1; None if each sample is drawn once.

    Raises UserError for an unknown rule.
    """
    if sampling not in SAMPLING:
        raise UserError(f"data.sampling={sampling} is not one of {', '.join(SAMPLING)}")
    if sampling == "uniform":
        return None
    chances = np.bincount(labels).astype(np.float64)[labels] ** (SAMPLING[sampling] - 1)
    return chances / chances.sum()


@dataclass(eq=False)
class EpochSampler(Sampler[tuple[int, int]]):
    """Every sample once per epoch, or as many draws with given probabilities, determined by (seed, epoch) alone.

    Yields (epoch, position), so that a worker needs no state to know the epoch. Samples are dealt to the ranks in turn,
    so that a global batch holds the same samples for any number of processes; samples that cannot be dealt evenly are
    left out of that epoch.

    Args:
        size: number of samples.
        seed: seed of the order.
        rank, world: number of this process, and number of processes.
        epoch: first epoch; a resumed run's loader starts its workers before Lightning calls `set_epoch`.
        chances: each sample's probability in a draw, (size,); None draws each sample once.
        groups: the chunk of each sample, (size,), if whole chunks are downloaded: chunks are shuffled, and samples are
            shuffled among those of `window` chunks. None shuffles all samples.
        window: number of chunks whose samples are mixed.
    """

    size: int
    seed: int
    rank: int = 0
    world: int = 1
    epoch: int = 0
    chances: NDArray[np.float64] | None = None
    groups: NDArray[np.int64] | None = None
    window: int = 16
    # An epoch, and the number of its samples that were drawn before the run was resumed.
    _resumed: tuple[int, int] = field(default=(0, 0), init=False)

    @property
    def start(self) -> int:
        """The number of this epoch's samples that all ranks together drew before the run was resumed."""
        epoch, samples = self._resumed
        return samples if epoch == self.epoch else 0

    def resume(self, epoch: int, samples: int) -> None:
        """Skip, in that epoch, the first `samples` of all ranks together."""
        self._resumed = (epoch, samples)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The length of a whole epoch, even if only a part is left."""
        return self.size // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, start = self.epoch, self.start
        order = self.order(np.random.default_rng([self.seed, epoch]))
        for position in order[start + self.rank : len(self) * self.world : self.world]:
            yield epoch, int(position)

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Positions of an epoch's samples, dealt to all ranks in turn."""
        if self.chances is not None:
            return rng.choice(self.size, self.size, p=self.chances)
        if self.groups is not None:
            # Window by window: each has random chunks, and its samples are in random order.
            windows = rng.permutation(self.groups.max() + 1)[self.groups] // self.window
            return np.lexsort((rng.random(len(self.groups)), windows))
        return rng.permutation(self.size)


class EpochLoader(DataLoader[Batch]):
    """Batches in an `EpochSampler`'s order, starting at any sample of an epoch.

    The state is the number of samples handed out over all processes, without those that workers have read ahead.
    Because a sample depends on (seed, epoch, id) only, another number of workers or processes continues with the same
    samples. Lightning keeps the state in checkpoints.
    """

    sampler: EpochSampler  # pyright: ignore[reportIncompatibleVariableOverride]
    _progress: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The rest of a resumed epoch, or a whole epoch."""
        self._progress = self._initial()
        return self._counted(super().__iter__(), **self._progress)

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of its samples that all processes together handed out."""
        return dict(self._progress or self._initial())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the samples of `state`, in that epoch only."""
        self.sampler.resume(int(state["epoch"]), int(state["samples"]))

    def _initial(self) -> dict[str, int]:
        return {"epoch": self.sampler.epoch, "samples": self.sampler.start}

    def _counted(self, batches: Iterator[Batch], epoch: int, samples: int) -> Iterator[Batch]:
        for batch in batches:
            samples += len(batch) * self.sampler.world
            self._progress = {"epoch": epoch, "samples": samples}
            yield batch


@dataclass(eq=False)
class BenchmarkImages(Dataset[ImageBatch]):
    """The images of a benchmark at full resolution: gallery images whole, queries cropped to their boxes.

    Crop, then scale: the box is cropped from the photo as stored on disk, the crop is shrunk to `max_side`, and the
    extractor's scales are factors on that size.

    Args:
        benchmark: the benchmark with images, queries and crop rule.
        max_side: larger images are shrunk to this side (by area) after the crop; None does not shrink.
        skip_bad: leave out unreadable images and list them in the batch, instead of raising an error.
        reading: how images are read; the benchmark may define their orientation.
    """

    benchmark: InitVar[Benchmark]
    max_side: int | None = None
    skip_bad: bool = False
    reading: Reading = READ_ALL

    def __post_init__(self, benchmark: Benchmark) -> None:
        self.source: ImageSource = benchmark.source
        self.crop: Crop = benchmark.crop
        if benchmark.orientation is not None:
            self.reading = self.reading._replace(orientation=benchmark.orientation)
        # Of the queries alone: a gallery may have a hundred million images.
        self.boxes = dict(zip(benchmark.queries.tolist(), benchmark.boxes, strict=True))

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, positions: Sequence[int]) -> ImageBatch:
        """The images at these positions. Raises UnreadableError for an unreadable one, unless `skip_bad`."""
        images: list[torch.Tensor] = []
        read: list[int] = []
        keys: list[tuple[int, int]] = []
        bad: list[BadImage] = []
        for position in positions:
            try:
                data = retry_io(self.source.read, position)
                pixels = decode(data, self.reading)
                pixels = shrink(crop_query(pixels, self.boxes.get(position, NO_BOX), self.crop), self.max_side)
                images.append(torch.from_numpy(pixels))
                read.append(position)
                keys.append(self.key(position, data))
            except (BrokenImageError, OSError) as error:
                bad.append(BadImage(self.source.name(position), reason(error)))
        if bad and not self.skip_bad:
            raise UnreadableError(f"image {bad[0].name} cannot be read: {bad[0].reason} (on_error=skip leaves it out)")
        skipped = [position for position in positions if position not in read]
        return ImageBatch(
            images=tuple(images),
            positions=torch.tensor(read, dtype=torch.int64),
            skipped=torch.tensor(skipped, dtype=torch.int64),
            keys=np.array(keys, IMAGE_KEY),
            bad=tuple(bad),
        )

    def key(self, position: int, data: bytes) -> tuple[int, int]:
        """The `IMAGE_KEY` of the image at a position, whose file holds `data`."""
        box = self.boxes.get(position, NO_BOX)
        cropped = self.crop != "none" and bool(np.isfinite(box).all())
        crop = f"{self.crop} {box.tolist()}" if cropped else ""
        digest = hashlib.blake2b(data, digest_size=8, key=hashlib.blake2b(crop.encode()).digest())
        return len(data), int.from_bytes(digest.digest(), "little")


def check_whole_images(max_side: object, on_error: object) -> None:
    """Raise UserError for an invalid `max_side` or `on_error`."""
    if max_side is not None and (not isinstance(max_side, int) or max_side < 1):
        raise UserError(f"max_side must be a whole number above 0 or null, not {max_side}")
    if on_error not in ("error", "skip"):
        raise UserError(f"on_error must be error or skip, not {on_error}")

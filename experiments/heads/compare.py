"""Aggregation heads on one frozen backbone; run.sh runs this script. See README.md.

    python experiments/heads/compare.py OUT DATASET:IMAGE_SIDE:OVERRIDES...

The backbone's maps of `VIEWS` crops of each training image, and of all validation and test images, are computed once
per data set and stored below OUT. A cell is a head, a learning rate and a seed, trained on those maps and measured by
the library's own pipeline. The best of `RATES` for seed 0, by validation on the first data set, is used for the other
seeds and the other data sets. A cell that is in results.json is not run again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn

from dolglab.commands.build_training import build_head
from dolglab.contracts import Benchmark, ExtractedFeatures, Features
from dolglab.data.datasets import TrainingImages
from dolglab.data.module import LandmarkDataModule
from dolglab.io import write_text
from dolglab.models.backbone import FeatureBackbone
from dolglab.models.dolg import DescriptorModel
from dolglab.retrieval.pipeline import RetrievalPipeline

CONF = Path(__file__).resolve().parents[2] / "conf"
# The last stage has stride 16, by dilation: every head gets the same map of 320 channels, and DOLG also the map of
# 112 channels of the stage before.
TRUNK = [
    "backbone=efficientnet_lite0",
    "+backbone.depths=[3,4]",
    "+backbone.options={output_stride:16}",
    "margin=arcface_wide",
    "augment=gentle",
    "optim=adamw",
    "optim.schedule.warmup=0.1",
]
# Each outputs 512 numbers.
HEADS = {
    "gem": ["model=gem_light", "pooling=gem"],
    "gem_plus": ["model=gem_light", "pooling=gem_plus"],
    "dolg": ["model=dolg_light_512", "pooling=gem", "local=attention"],
    "netvlad": ["model=gem_light", "pooling=netvlad", "pooling.clusters=16"],
    "mixvpr": ["model=pooled", "pooling=mixvpr", "pooling.resize=true", "pooling.dim_channels=128", "pooling.rows=4"],
    "boq": ["model=pooled", "pooling=boq", "pooling.dim_channels=128", "pooling.queries=16", "pooling.rows=4"],
    "salad": [
        "model=pooled",
        "pooling=salad",
        "pooling.clusters=16",
        "pooling.cluster_dim=24",
        "pooling.token_dim=128",
    ],
}
RATES, SEEDS = (1e-3, 3e-3, 1e-2, 3e-2), (0, 1, 2)
VIEWS, STEPS, BATCH, CLIP = 4, 200, 32, 10.0


@dataclass(frozen=True)
class Maps:
    """The backbone's maps of a data set, float16: (N, VIEWS, C, H, W) of training crops, a pair per benchmark image."""

    name: str
    data: LandmarkDataModule
    local: NDArray[np.float16]
    global_: NDArray[np.float16]
    whole: dict[str, dict[int, tuple[Tensor, Tensor]]]


def composed(*overrides: str) -> DictConfig:
    """The training configuration with these overrides."""
    return compose("train", overrides=["output_dir=out", "name=heads", *TRUNK, *overrides])


def load_maps(out: Path, name: str, overrides: list[str], side: int) -> Maps:
    """The maps of a data set, computed if missing."""
    cfg = composed(*overrides, f"data.image_size={side}", f"data.batch_size={BATCH}", "data.workers=0")
    data: LandmarkDataModule = instantiate(cfg.data, augmentation=cfg.augment)
    folder = out / "maps" / name
    if not (folder / "whole.pt").exists():
        start = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        backbone = instantiate(cfg.backbone).eval()
        whole = {b.name: dict(whole_maps(backbone, data, b)) for b in (data.validation[0], data.test[0])}
        save_crops(backbone, data, folder)
        torch.save(whole, folder / "whole.pt")
        print(f"{name}: maps in {time.perf_counter() - start:.0f} s", flush=True)
    arrays = [np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("local", "global")]
    return Maps(name, data, arrays[0], arrays[1], torch.load(folder / "whole.pt", weights_only=True))


@torch.inference_mode()
def save_crops(backbone: FeatureBackbone, data: LandmarkDataModule, folder: Path) -> None:
    """Write the maps of each training image's crops in the first epochs."""
    assert data.training is not None
    images = TrainingImages(data.training, data.image_size, data.augmentation.crop, data.seed, data.reading)
    files: dict[str, Any] = {}
    for view in range(VIEWS):
        for start in range(0, len(images), BATCH):
            rows = range(start, min(start + BATCH, len(images)))
            batch = images.__getitems__([(view, row) for row in rows])
            found = backbone(backbone.normalise(data.augmentation(batch.images, batch.draws)))
            for part, maps in (("local", found.local), ("global", found.global_)):
                if part not in files:
                    shape = (len(images), VIEWS, *maps.shape[1:])
                    files[part] = np.lib.format.open_memmap(folder / f"{part}.npy", "w+", np.float16, shape)
                files[part][rows.start : rows.stop, view] = maps.half().numpy()


@torch.inference_mode()
def whole_maps(
    backbone: FeatureBackbone, data: LandmarkDataModule, benchmark: Benchmark
) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Position and maps of each image of a benchmark, with queries cropped."""
    images = data.images_of(benchmark)
    for position in range(len(images)):
        pixels = images.__getitems__([position]).images[0].permute(2, 0, 1)[None]
        found = backbone(backbone.normalise(pixels))
        yield position, (found.local[0].half(), found.global_[0].half())


def train(model: DescriptorModel, cfg: DictConfig, maps: Maps, seed: int, rate: float) -> float:
    """Train everything but the backbone for `STEPS` steps; returns processor seconds."""
    data = maps.data
    assert data.training is not None
    labels = torch.from_numpy(data.training.labels)
    head = build_head(cfg.margin, model.dim, data.num_classes, data.class_sizes)
    parameters = [*(p for p in new_parameters(model) if p.requires_grad), *head.parameters()]
    optimizer = instantiate(cfg.optim.optimizer, lr=rate)(parameters)
    schedule = instantiate(cfg.optim.schedule)(optimizer, STEPS)
    order = drawn(len(labels), seed)
    start = time.process_time()
    model.train()
    for _ in range(STEPS):
        rows, view = next(order)
        features = Features(*(torch.from_numpy(np.float32(part[rows, view])) for part in (maps.local, maps.global_)))
        optimizer.zero_grad()
        head.loss(model.describe(features), labels[rows]).loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        schedule.step()
    return time.process_time() - start


def drawn(size: int, seed: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Rows of complete batches, epoch by epoch in random order, and the epoch's view."""
    rng = np.random.default_rng(seed)
    epoch = 0
    while True:
        order = rng.permutation(size)
        for start in range(0, size - BATCH + 1, BATCH):
            yield np.sort(order[start : start + BATCH]), epoch % VIEWS
        epoch += 1


def new_parameters(model: DescriptorModel) -> list[nn.Parameter]:
    """All parameters except the backbone's."""
    trunk = set(model.backbone.parameters())
    return [p for p in model.parameters() if p not in trunk]


@torch.inference_mode()
def measure(model: DescriptorModel, maps: Maps, benchmark: Benchmark) -> float:
    """Medium mAP in percent."""
    model.eval()
    pairs = maps.whole[benchmark.name]
    described = np.empty((len(pairs), model.dim), np.float32)
    for position, (local, global_) in pairs.items():
        described[position] = F.normalize(model.describe(Features(local[None].float(), global_[None].float())))[0]
    found = ExtractedFeatures(np.ones(len(pairs), bool), descriptors=described)
    pipeline = RetrievalPipeline()
    ranking = pipeline.measure(pipeline.search(found, benchmark), benchmark, found)
    return 100 * ranking.evaluation["medium"]["map"]


def start_from_clusters(model: DescriptorModel, maps: Maps, seed: int) -> None:
    """Initialise NetVLAD by k-means like `dolglab train`; other poolings keep their initialisation."""
    start = getattr(model.pooling, "start_from_samples", None)
    if start is None:
        return
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(maps.global_))[:400])
    cells = F.normalize(torch.from_numpy(maps.global_[rows, 0]).float()).flatten(2).mT
    start(torch.cat([image[rng.permutation(len(image))[:50]] for image in cells]), seed)


@torch.inference_mode()
def head_milliseconds(model: DescriptorModel, maps: Maps) -> float:
    """Milliseconds of the head on one training crop's maps, the median of 20."""
    features = Features(*(torch.from_numpy(np.float32(part[:1, 0])) for part in (maps.local, maps.global_)))
    spent = []
    for _ in range(20):
        start = time.process_time()
        model.describe(features)
        spent.append(1000 * (time.process_time() - start))
    return float(np.median(spent))


def run_cell(maps: Maps, side: int, head: str, seed: int, rate: float) -> dict[str, Any]:
    """Train and measure one head."""
    cells = side // 16
    cfg = composed(*HEADS[head], *([f"pooling.map_size=[{cells},{cells}]"] if head == "mixvpr" else []))
    torch.manual_seed(seed)
    model: DescriptorModel = instantiate(cfg.model)
    start_from_clusters(model, maps, seed)
    seconds = train(model, cfg, maps, seed, rate)
    return {
        "validation": measure(model, maps, maps.data.validation[0]),
        "test": measure(model, maps, maps.data.test[0]),
        "bytes": 4 * model.dim,
        "parameters": sum(p.numel() for p in new_parameters(model)),
        "train_seconds": round(seconds, 1),
        "head_ms": round(head_milliseconds(model, maps), 2),
    }


def main() -> None:
    out, datasets = Path(sys.argv[1]), [given.split(":", 2) for given in sys.argv[2:]]
    results = out / "results.json"
    done: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for name, side, overrides in datasets:
            maps = load_maps(out, name, overrides.split(), int(side))
            for head, seed, rate in cells(done, name, tuned_on=datasets[0][0]):
                key = key_of(name, head, seed, rate)
                done[key] = run_cell(maps, int(side), head, seed, rate)
                write_text(results, json.dumps(done, indent=1) + "\n")
                print(key, done[key], flush=True)


def cells(done: dict[str, Any], name: str, tuned_on: str) -> Iterator[tuple[str, int, float]]:
    """The cells of a data set still to run: all rates of seed 0 where rates are chosen, then each head's best."""
    if name == tuned_on:
        every = [(head, SEEDS[0], rate) for rate in RATES for head in HEADS]
        yield from (cell for cell in every if key_of(name, *cell) not in done)
    for seed in SEEDS:
        for head in HEADS:
            cell = (head, seed, best_rate(done, tuned_on, head))
            if key_of(name, *cell) not in done:
                yield cell


def best_rate(done: dict[str, Any], name: str, head: str) -> float:
    """The best learning rate of seed 0, by validation."""
    return max(RATES, key=lambda rate: done[key_of(name, head, SEEDS[0], rate)]["validation"])


def key_of(name: str, head: str, seed: int, rate: float) -> str:
    """A cell's name in results.json."""
    return f"{name}/{head}/{seed}/{rate:g}"


if __name__ == "__main__":
    main()

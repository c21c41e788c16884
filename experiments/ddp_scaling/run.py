"""Scaling with the number of processes: `python experiments/ddp_scaling/run.py`.

One process and two (gloo, one thread each) train DOLG on the demo world with the same batch per process, and with the
same global batch; seconds per step come from the runs' own logs. The bytes exchanged in a step are counted in DDP's
buckets, and must be those of the trained parameters. From them, the exchange of eight GPUs is computed, not measured,
for the recipes.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from dolglab.models.checkpoint import read_checkpoint
from dolglab.results.metrics_log import read_series

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OUT = ROOT / "outputs" / "ddp_scaling"
BATCH, STEPS, ROUNDS, WARM_UP = 16, 12, 3, 3
RECIPE = [
    "data=demo",
    "backbone=r18",
    "backbone.pretrained=false",
    "data.image_size=144",
    "local=aspp_9x9",
    "data.workers=0",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    f"trainer.max_steps={STEPS}",
    "test=false",
    "data.validation.demo=null",
]
TWO = ["strategy=ddp_gloo", "trainer.devices=2", "strategy._target_=counted.CountedDDP"]
LANDMARKS, DIM, GLOBAL_BATCH, GPUS = 81313, 512, 128, 8
# Approximate bytes per second that each GPU sends: PCIe 4.0 x16, and NVLink on an A100.
LINKS = {"PCIe, 20 GB/s": 20e9, "NVLink, 200 GB/s": 200e9}


def main() -> None:
    """Print both tables."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    runs = {
        "one process": (BATCH, []),
        "two, the same batch each": (2 * BATCH, TWO),
        "two, half the batch each": (BATCH, TWO),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS):
        for place, (name, (batch, extra)) in enumerate(runs.items()):
            seconds[name] += train(OUT / f"{place}_{turn}", batch, extra)
    alone = statistics.median(seconds["one process"])
    print("| measured here | images per step | s per step | images/s, relative to one process |\n|---|---:|---:|---:|")
    for name, (batch, _) in runs.items():
        step = statistics.median(seconds[name])
        print(f"| {name} | {batch} | {step:.3f} | {batch / BATCH * alone / step:.2f} |")
    print(exchanged())
    print(
        "\n| computed, not measured: 8 GPUs | MB of gradients | MB sent per GPU and step | " + " | ".join(LINKS) + " |"
    )
    print("|---|---:|---:|" + "---:|" * len(LINKS))
    for backbone in ("r50", "r101"):
        for parallel in (False, True):
            print(computed(backbone, parallel))


def train(run: Path, batch: int, extra: list[str]) -> list[float]:
    """Seconds of a training's steps."""
    asked = [sys.executable, "-W", "ignore", "-m", "src.train", *RECIPE, f"data.batch_size={batch}", *extra]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": str(HERE),
        "EXCHANGES": str(run.with_suffix(".txt")),
    }
    subprocess.run([*asked, f"hydra.run.dir={run}"], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    speeds = read_series(run / "metrics.csv")["train/images_per_second_step"].values
    return [batch / speed for speed in speeds[WARM_UP:]]


def exchanged() -> str:
    """The exchange of a step of two processes. Raises SystemExit if it is not 4 bytes per trained parameter."""
    rows = [line.split() for line in (OUT / "1_0.txt").read_text().splitlines()]
    total = sum(int(size) for size, *_ in rows)
    weights = read_checkpoint(OUT / "1_0" / "checkpoints" / "last.ckpt")["optimizer_states"][0]["state"]
    expected = sum(4 * state["momentum_buffer"].numel() for state in weights.values())
    if total != expected * STEPS:
        raise SystemExit(f"{total / STEPS:.0f} bytes per step were exchanged, not the {expected} of the parameters")
    busy = sum(float(done) - float(begun) for _, begun, done in rows) / STEPS
    return (
        f"\na step exchanges {expected / 1e6:.1f} MB, 4 bytes for each trained parameter, in {len(rows) / STEPS:.0f} "
        f"buckets. The exchanges take {busy:.3f} s per step in total and overlap with one another and the backward pass"
    )


def computed(backbone: str, parallel: bool) -> str:
    """A recipe's gradients, the bytes that each GPU of a ring sends, and the time at each link's bandwidth."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=[f"backbone={backbone}", "backbone.pretrained=false"])
    network = sum(p.numel() for p in instantiate(cfg.model).parameters() if p.requires_grad)
    size = 4 * (network + (0 if parallel else LANDMARKS * DIM))
    sent = 2 * (GPUS - 1) / GPUS * size
    if parallel:
        # Descriptors are gathered, and their gradients summed.
        sent += 3 * (GPUS - 1) / GPUS * 4 * GLOBAL_BATCH * DIM
    name = f"DOLG {backbone.upper()}, head " + ("divided (class_parallel=true)" if parallel else "on each GPU")
    times = " | ".join(f"{1000 * sent / link:.1f} ms" for link in LINKS.values())
    return f"| {name} | {size / 1e6:.0f} | {sent / 1e6:.0f} | {times} |"


if __name__ == "__main__":
    main()

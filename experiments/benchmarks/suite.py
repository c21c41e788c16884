"""A suite compared with separate evaluations: processor time and wall time of the same cells, in both orders.

`python experiments/benchmarks/suite.py --photos DIR` evaluates GeM, GeM+ and RMAC of an untrained EfficientNet-Lite0
on a folder of photos, without stored descriptors. The time of a command includes all its processes.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

POOLINGS = ("gem", "gem_plus", "rmac")
PR_SET_CHILD_SUBREAPER = 36
IMPORTS = "import dolglab.commands.build_evaluation, dolglab.evaluation.evaluator, dolglab.results.report, timm"
Times = tuple[float, float]


def main() -> None:
    """Compare on given or synthetic photos."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--photos", type=Path, help="a folder with one sub-folder per landmark; default: 120 synthetic photos"
    )
    parser.add_argument("--side", type=int, default=256, help="longer side of the photos in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.photos is None:
        with tempfile.TemporaryDirectory() as folder:
            compare(made_up(Path(folder)), asked.side, asked.rounds)
    else:
        compare(asked.photos, asked.side, asked.rounds)


def made_up(root: Path) -> Path:
    """Photos of noise, ten for each of twelve landmarks."""
    rng = np.random.default_rng(1)
    for number in range(120):
        path = root / f"landmark_{number // 10}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (192, 256, 3), np.uint8)).save(path)
    return root


def compare(photos: Path, side: int, rounds: int) -> None:
    """Print the medians."""
    # Adopt processes whose parent has ended, or their time would not be counted.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    common = [
        "model=imagenet_gem",
        "backbone=efficientnet_lite0",
        "benchmark=folder",
        f"benchmark.root={photos.resolve()}",
    ]
    common += ["trainer=cpu", "workers=0", "pictures=0", "scales=[1.0]", f"max_side={side}"]
    suites: list[Times] = []
    singles: list[list[Times]] = []
    imports: list[Times] = []
    for number in range(rounds):
        steps = [lambda: suites.append(suite(common)), lambda: singles.append([single(common, p) for p in POOLINGS])]
        for step in steps if number % 2 else reversed(steps):
            step()
        imports.append(timed([sys.executable, "-c", IMPORTS], Path.cwd()))
    print(f"{len(POOLINGS)} evaluations, medians of {rounds} rounds: processor, wall")
    rows = {
        "one by one, in total": [tuple(map(sum, zip(*found, strict=True))) for found in singles],
        "as a suite": suites,
        "the imports of an evaluation": imports,
    }
    for name, found in rows.items():
        print(f"{name}: {', '.join(f'{statistics.median(part):.1f} s' for part in zip(*found, strict=True))}")
    shares = [
        [own[kind] / sum(each[kind] for each in found) - 1 for own, found in zip(suites, singles, strict=True)]
        for kind in range(2)
    ]
    for name, found in zip(("processor", "wall"), shares, strict=True):
        each = ", ".join(f"{100 * share:+.1f}" for share in found)
        print(f"the suite compared with the sum, {name}: {100 * statistics.median(found):+.1f} % ({each})")


def suite(common: Sequence[str]) -> Times:
    """All evaluations with one command."""
    return evaluate(["-m", "name=all", f"pooling={','.join(POOLINGS)}", *common])


def single(common: Sequence[str], pooling: str) -> Times:
    """One evaluation with its own command."""
    return evaluate([f"name={pooling}", f"pooling={pooling}", *common])


def evaluate(arguments: Sequence[str]) -> Times:
    """An evaluation in an empty folder."""
    folder = Path(tempfile.mkdtemp())
    try:
        return timed([sys.executable, "-m", "dolglab.commands.evaluate", *arguments], folder)
    finally:
        shutil.rmtree(folder)


def timed(command: Sequence[str], folder: Path) -> Times:
    """Seconds of processor time of a command with all its children, and of wall time."""
    before, start = _children(), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return _children() - before, wall


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

"""The memory of `src.embed` by size of the folder: the largest resident set of a process for each size.

There are 4,000 photos of random shapes (few batches are alike, which is hard on an allocator), each with as many
names as the size requires.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

DIFFERENT = 4000
RUN = """
import resource, runpy, sys
try:
    runpy.run_module("src.embed", run_name="__main__")
except SystemExit as ended:
    assert not ended.code, ended.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def write(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    files = []
    for number in range(DIFFERENT):
        height, width = (int(side) for side in rng.integers(300, 500, 2))
        pixels = rng.integers(0, 256, (height // 20 + 1, width // 20 + 1, 3), np.uint8)
        files.append(folder / f"{number:04d}.jpg")
        Image.fromarray(pixels.repeat(20, 0).repeat(20, 1)[:height, :width]).save(files[-1])
    return files


def peak(folder: Path, files: list[Path], size: int) -> tuple[int, float]:
    """The largest resident set, in MB, of embedding this many photos, and photos per second including the start."""
    photos = folder / f"photos-{size}"
    photos.mkdir()
    for number in range(size):
        os.link(files[number % len(files)], photos / f"{number:07d}.jpg")
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(photos), "--library", str(folder / f"library-{size}")]
    ended = subprocess.run(
        [*command, "--model", "efficientnet_lite0", "--max-side", "128"], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(ended.stdout.splitlines()[-1]), size / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="*", default=[400, 4000, 12_000, 48_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "different").mkdir()
        files = write(Path(folder) / "different")
        print("| photos | peak MB | photos/s |\n|---:|---:|---:|")
        for size in options.sizes:
            megabytes, rate = peak(Path(folder), files, size)
            print(f"| {size:,} | {megabytes:,} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    main()

"""Memory for a list of many gallery files: a synthetic copy of ILIAS's full gallery, with existing files.

`python experiments/benchmarks/listed_memory.py --rows 10000000`: folders of 100,000 files are links to one folder, so
that few files are made. Pages of temporary files, which the system can reclaim, are not counted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import tempfile
import threading
import time
from pathlib import Path

from dolglab.data.benchmarks.ilias import ilias_benchmark
from dolglab.data.datasets import BenchmarkImages

IN_A_FOLDER = 100_000


def main() -> None:
    """Print seconds and bytes per row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        root = make(Path(folder), rows)
        before, peak, done = anonymous(), [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                peak[0] = max(peak[0], anonymous())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        start = time.perf_counter()
        benchmark = ilias_benchmark(root, "full")
        images = BenchmarkImages(benchmark)
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        kept = anonymous() - before
        print(f"{len(images):,} images, {seconds:.0f} s, {benchmark.source.name(len(images) - 3)}")
        print(f"in memory: at most {(peak[0] - before) / rows:.1f} bytes per row, afterwards {kept / rows:.1f}")


def make(root: Path, rows: int) -> Path:
    """ILIAS with one object and this number of distractors."""
    names = ["ash_bud_000/pos/P000_00.jpg", "ash_bud_000/query/Q000_00.jpg"]
    for name in names:
        (root / "ilias_core" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "ilias_core" / name).write_bytes(b"x")
    shards = [f"yfcc100m_{number:04}" for number in range(-(-rows // IN_A_FOLDER))]
    first = root / "yfcc100m" / shards[0]
    first.mkdir(parents=True)
    keys = [f"{number * 7919:010x}" for number in range(min(rows, IN_A_FOLDER))]
    for key in keys:
        (first / f"{key}.jpg").touch()
    for shard in shards[1:]:
        os.symlink(first, first.with_name(shard))
    lists = root / "image_ids"
    lists.mkdir()
    (lists / "positive_ids.txt").write_text(f"{names[0]},0.1,1\n")
    (lists / "image_query_ids.txt").write_text(f"{names[1]},0\n")
    with gzip.open(lists / "distractor_ids.txt.gz", "wt", compresslevel=1) as file:
        for number, shard in enumerate(shards):
            file.writelines(f"{shard}.tar/{key}\n" for key in keys[: rows - number * IN_A_FOLDER])
    (root / "taxonomy.json").write_text(json.dumps({}))
    return root


def anonymous() -> int:
    """Bytes of this process's memory that are not mapped from files."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    main()

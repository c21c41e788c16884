"""The complete command `embed`, compared with an earlier version and a plain onnxruntime loop, on real photos.

    PYTHONPATH=src python experiments/benchmarks/embedding.py --photos FOLDER [--before CHECKOUT] [--burner]

Each runs in its own process, in turn; medians of several rounds: seconds, processor seconds and peak memory. The
plain loop reads, decodes, shrinks and describes one photo after another with an existing ONNX file and onnxruntime's
defaults, and writes one .npy. The earlier checkout (whose import package was `src`) runs its default and its
`--backend onnx`, whose exported file also exists already. With `--burner`, another process keeps one core busy.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A process's peak includes the memory of the process that started it, so this one stays small.
EXPORT = """
import sys
from pathlib import Path
from dolglab.sharing.networks import load_network
from dolglab.sharing.onnx_export import write_onnx
write_onnx(load_network(sys.argv[1]), Path(sys.argv[2]))
"""
PLAIN = """
import sys
import cv2, numpy as np, onnxruntime, simplejpeg
listed, model, out, side = *sys.argv[1:4], int(sys.argv[4])
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
rows = []
for name in open(listed).read().splitlines():
    image = simplejpeg.decode_jpeg(open(name, "rb").read())
    factor = side / max(image.shape[:2])
    if factor < 1:
        height, width = (round(length * factor) for length in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)
    rows.append(session.run(None, {"images": pixels})[0][0])
np.save(out, np.stack(rows))
"""
BUSY = "while True: pass"
Cost = tuple[float, float, float]


def cost(command: list[str], folder: Path) -> Cost:
    """Seconds, seconds of processor time, and megabytes at the peak, of a command that runs in `folder`."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


@contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """With another process that keeps a core busy, if requested."""
    process = subprocess.Popen([sys.executable, "-c", BUSY]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def chosen(photos: Path, count: int) -> list[str]:
    """This many JPEGs of a folder, evenly chosen."""
    files = sorted(str(path.resolve()) for path in photos.rglob("*.jpg"))
    return [files[number * len(files) // count] for number in range(count)] if count < len(files) else files


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, required=True, help="a folder with JPEGs")
    parser.add_argument("--counts", type=int, nargs="*", default=[100, 400])
    parser.add_argument("--before", type=Path, help="a checkout from before the package was called dolglab")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--max-side", type=int, default=1024)
    parser.add_argument("--burner", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    here = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as temporary, neighbour(options.burner):
        folder = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        listed, library, graph = folder / "photos.txt", folder / "library", folder / "model.onnx"
        subprocess.run([sys.executable, "-c", EXPORT, options.model, graph], check=True)
        asked = ["--list", str(listed), "--library", str(library), "--model", options.model]
        asked += ["--max-side", str(options.max_side)]
        plain = [sys.executable, "-c", PLAIN, *map(str, (listed, graph, folder / "rows.npy", options.max_side))]
        ours = [sys.executable, "-m", "src.embed", *asked]
        commands = {"the plain loop": (plain, here), "embed": (ours, here)}
        if options.before:
            commands["before: embed"] = (ours, options.before)
            commands["before: embed --backend onnx"] = ([*ours, "--backend", "onnx"], options.before)
        for count in (1, *options.counts):
            listed.write_text("\n".join(chosen(options.photos, count)))
            # The first round has one photo and exports the ONNX files.
            rounds = options.rounds if count > 1 else 1
            costs: dict[str, list[Cost]] = {name: [] for name in commands}
            for _ in range(rounds):
                for name, (command, place) in commands.items():
                    shutil.rmtree(library, ignore_errors=True)
                    costs[name].append(cost(command, place))
            if count > 1:
                tell(count, costs)


def tell(count: int, costs: dict[str, list[Cost]]) -> None:
    """Print a table."""
    print(f"\n| {count} photos | s | ratio | processor, s | ratio | peak, MB |\n|---|---:|---:|---:|---:|---:|")
    medians = {name: [statistics.median(values) for values in zip(*each, strict=True)] for name, each in costs.items()}
    first = next(iter(medians.values()))
    for name, (seconds, processor, peak) in medians.items():
        ratios = f"{seconds:.2f} | {first[0] / seconds:.2f} | {processor:.2f} | {first[1] / processor:.2f}"
        print(f"| {name} | {ratios} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()

"""The cost of a first answer: `search` for one photo, `library info` and mistakes, compared with a plain script.

    PYTHONPATH=src python experiments/benchmarks/first_answer.py [--photos FOLDER]

Each runs in its own process, in turn; medians of several rounds: processor time and peak memory. The plain script
does the same as a search, with onnxruntime, faiss and sqlite3, on an existing ONNX file, descriptors and names.
Without a folder, photos are synthetic, 1024 x 768.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# A process's peak includes the memory of the process that started it, so this one stays small.
PREPARE = """
import sqlite3, subprocess, sys
from pathlib import Path
import faiss, numpy as np
from PIL import Image
from dolglab.library.library import Library
from dolglab.sharing.networks import load_network
from dolglab.sharing.onnx_export import write_onnx
folder, photos = Path(sys.argv[1]), Path(sys.argv[2])
if not photos.exists():
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(200):
        blocks = rng.integers(0, 256, (768 // 16, 1024 // 16, 3), np.uint8)
        Image.fromarray(blocks.repeat(16, 0).repeat(16, 1)).save(photos / f"{number:03d}.jpg")
command = [sys.executable, "-m", "dolglab", "embed", photos, "--library", folder / "library"]
subprocess.run([*command, "--model", "efficientnet_lite0"], check=True)
library = Library(folder / "library")
keys = library.keys()
index = faiss.IndexFlatIP(library.identity["dim"])
index.add(library.descriptors(keys))
faiss.write_index(index, str(folder / "index.faiss"))
found = library.catalogue.photos(keys.tolist())
with sqlite3.connect(folder / "names.db") as names:
    names.execute("CREATE TABLE photos (id INTEGER PRIMARY KEY, name TEXT)")
    names.executemany("INSERT INTO photos VALUES (?, ?)", enumerate(found[key].name for key in keys.tolist()))
write_onnx(load_network("efficientnet_lite0"), folder / "model.onnx")
(folder / "query.txt").write_text(found[int(keys[0])].name)
"""
PLAIN = """
import sqlite3, sys
import faiss, numpy as np, onnxruntime
from PIL import Image
model, index, names, photo = sys.argv[1:]
image = Image.open(photo).convert("RGB")
image.thumbnail((1024, 1024), Image.Resampling.BILINEAR)
pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[None]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
(descriptor,) = session.run(None, {"images": np.ascontiguousarray(pixels)})
cosines, rows = faiss.read_index(index).search(descriptor, 20)
catalogue = sqlite3.connect(names)
for cosine, row in zip(cosines[0], rows[0]):
    print(f"{cosine:.3f}", *catalogue.execute("SELECT name FROM photos WHERE id = ?", (int(row),)).fetchone())
"""


def cost(command: list[str]) -> tuple[float, float]:
    """Seconds of processor time, and megabytes at the peak."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, help="a folder of photos to search among")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = options.photos or folder / "photos"
        subprocess.run([sys.executable, "-c", PREPARE, folder, photos], check=True, stdout=subprocess.DEVNULL)
        photo = (folder / "query.txt").read_text()
        files = [str(folder / name) for name in ("model.onnx", "index.faiss", "names.db")]
        dolglab, library = [sys.executable, "-m", "dolglab"], ["--library", str(folder / "library")]
        commands = {
            "the plain script": [sys.executable, "-c", PLAIN, *files, photo],
            "search": [*dolglab, "search", photo, *library],
            "search --rerank spatial": [*dolglab, "search", photo, *library, "--rerank", "spatial"],
            "search --backend torch": [*dolglab, "search", photo, *library, "--backend", "torch"],
            "search, no such photo": [*dolglab, "search", "gone.jpg", *library],
            "library info": [*dolglab, "library", "info", *library],
            "library remove, no such photo": [*dolglab, "library", "remove", "gone.jpg", *library],
        }
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                costs[name].append(cost(command))
    seconds, memory = ({name: statistics.median(c[i] for c in each) for name, each in costs.items()} for i in (0, 1))
    print("| | processor, s | ratio | peak, MB | ratio |\n|---|---:|---:|---:|---:|")
    first = next(iter(commands))
    for name in commands:
        ratios = f"{seconds[name] / seconds[first]:.2f} | {memory[name]:.0f} | {memory[name] / memory[first]:.2f}"
        print(f"| {name} | {seconds[name]:.2f} | {ratios} |")


if __name__ == "__main__":
    main()

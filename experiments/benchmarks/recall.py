"""Recall@k of places at a million positions: ours, from descriptors to the figure, compared with faiss's brute force.

    OMP_WAIT_POLICY=PASSIVE PYTHONPATH=. python experiments/benchmarks/recall.py [--images N] [--queries N] [--dim D]

Synthetic images are two metres apart along a winding road and resemble their neighbours; queries were taken beside
them. Ours finds the images within 25 m, ranks exactly and measures; faiss's `IndexFlatIP` gives the same answers by a
full product, and plain numpy the positives of some queries by all distances. Each version runs in its own process, in
turn. Seconds are medians; memory is the peak RAM of a process (VmHWM) in addition to what it used with the
descriptors loaded (faiss's copy of them is not counted). Answers may differ where two products are closer than
float32's rounding; other differences are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

# Imports that ranking does only when needed should not count.
import torch  # noqa: F401
from numpy.typing import NDArray

from dolglab.concurrency import available_cores
from dolglab.contracts import GroundTruth
from dolglab.data.benchmarks.places import KAPPAS, RADIUS, PlaceMeasure, first_hits, within
from dolglab.retrieval.ranking import exact_ranking

ROUNDS, STEP, SMOOTH, NOISE = 3, 2.0, 20, 1.0
MADE_AT_ONCE = 50_000
WAYS = ("ours", "faiss")
CHECKED = 50


def main() -> None:
    """Make descriptors and positions, measure, print."""
    parser = argparse.ArgumentParser(description="Recall@k compared with faiss's brute force.")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.root, options.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, options.images, options.queries, options.dim)
        print(
            f"{options.queries:,} queries x {options.images:,} positions x {options.dim} values, {available_cores()} "
            f"threads, medians of {ROUNDS}"
        )
        report(root)


def make(root: Path, images: int, queries: int, dim: int) -> None:
    """Descriptors and metres of database and queries."""
    rng = np.random.default_rng(0)
    along = STEP * np.arange(images)
    metres = np.stack([5e5 + 300 * np.sin(along / 900), 4e6 + along], axis=1)
    # Each image looks like the place, which changes along the road, and a little like itself alone.
    anchors = rng.standard_normal((images // SMOOTH + 2, dim), np.float32)
    gallery = np.lib.format.open_memmap(root / "gallery.npy", "w+", np.float32, (images, dim))
    for start in range(0, images, MADE_AT_ONCE):
        gallery[start : start + MADE_AT_ONCE] = look(anchors, np.arange(start, min(start + MADE_AT_ONCE, images)), rng)
    gallery.flush()
    rows = np.sort(rng.choice(images, queries, replace=False))
    np.save(root / "queries.npy", look(anchors, rows, rng))
    np.save(root / "database_metres.npy", metres)
    np.save(root / "query_metres.npy", metres[rows] + rng.uniform(-8, 8, (queries, 2)))


def look(anchors: NDArray[np.float32], rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Unit descriptors at some places of the road."""
    place, share = np.divmod(rows, SMOOTH)
    share = (share / SMOOTH).astype(np.float32)[:, None]
    looks = (1 - share) * anchors[place] + share * anchors[place + 1]
    looks += NOISE * rng.standard_normal(looks.shape, np.float32)
    return looks / np.linalg.norm(looks, axis=1, keepdims=True)


def report(root: Path) -> None:
    """Measure both versions in turn, and compare their results."""
    runs: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, found in runs.items():
            found.append(run(root, way))
    seconds = {way: statistics.median(one["seconds"] for one in found) for way, found in runs.items()}
    for way, found in runs.items():
        figures = ", ".join(f"{name} {100 * value:.2f}" for name, value in found[0]["figures"].items())
        memory = statistics.median(one["megabytes"] for one in found)
        print(f"{way:<6}{seconds[way]:7.2f} s, {memory:6.0f} MB beyond the descriptors   {figures}")
    print(f"ours takes {seconds['ours'] / seconds['faiss']:.2f} times faiss's time")
    ours, theirs = (np.load(root / f"{way}_answers.npy") for way in WAYS)
    print(f"{exchanged(root, ours, theirs)} of {ours.size:,} answers differ, apart from swapped ties")
    print(f"positives of {CHECKED} queries by all distances: {'the same' if same_positives(root) else 'OTHER'}")


def run(root: Path, way: str) -> dict:
    """`measure` in its own process."""
    command = [sys.executable, __file__, "--root", str(root), "--measure", way]
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    return json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)


def measure(root: Path, way: str) -> dict:
    """Seconds, peak megabytes and figures; the answers are left in a file."""
    gallery, queries = np.load(root / "gallery.npy"), np.load(root / "queries.npy")
    database, asked = np.load(root / "database_metres.npy"), np.load(root / "query_metres.npy")
    top = max(KAPPAS)
    index = faiss.IndexFlatIP(gallery.shape[1])
    if way == "faiss":
        # Adding copies the descriptors, which does not belong to a search.
        index.add(gallery)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = status_megabytes("VmRSS"), time.perf_counter()
    positives = within(asked, database, RADIUS)
    if way == "ours":
        measured, nothing = PlaceMeasure(), [np.empty(0, np.int64)] * len(queries)
        truth = GroundTruth(positives, tuple(nothing), tuple(nothing))
        ranked = exact_ranking(gallery, queries, nothing, top)
        answers = ranked.top_k
        evaluation = measured.figures(truth, dict.fromkeys(measured.difficulties, ranked)).evaluation
        figures = {name: scores["map"] for name, scores in evaluation.items()}
    else:
        _, answers = index.search(queries, top)
        first = first_hits(answers, positives)
        figures = {f"recall@{k}": float((first < k).mean()) for k in KAPPAS}
    seconds = time.perf_counter() - start
    np.save(root / f"{way}_answers.npy", answers)
    return {"seconds": seconds, "megabytes": status_megabytes("VmHWM") - before, "figures": figures}


def exchanged(root: Path, ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> int:
    """The number of differing answers whose products are not equal (in float64, up to float32's rounding)."""
    gallery, queries = np.load(root / "gallery.npy", mmap_mode="r"), np.load(root / "queries.npy").astype(np.float64)
    rows, ranks = np.nonzero(ours != theirs)
    products = [
        np.einsum("nd,nd->n", gallery[answers[rows, ranks]].astype(np.float64), queries[rows])
        for answers in (ours, theirs)
    ]
    return int((np.abs(products[0] - products[1]) > 1e-6).sum())


def same_positives(root: Path) -> bool:
    """Whether the positives of some queries are the same by all distances."""
    database, asked = np.load(root / "database_metres.npy"), np.load(root / "query_metres.npy")[:CHECKED]
    plain = [np.flatnonzero(np.linalg.norm(database - own, axis=1) <= RADIUS) for own in asked]
    return all(map(np.array_equal, within(asked, database, RADIUS), plain))


def status_megabytes(field: str) -> float:
    """A value of /proc/self/status, in MB (there in kB)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()

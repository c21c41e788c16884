"""Ranking a million images for 70 queries: ours, and the full product, a full sort and a loop over queries.

    OMP_WAIT_POLICY=PASSIVE PYTHONPATH=. python experiments/benchmarks/ranking.py [--large] [--root FOLDER]
    OMP_NUM_THREADS=1 PYTHONPATH=. python experiments/benchmarks/ranking.py --before CHECKOUT

Synthetic descriptors of 512 values with planted positives: easy ones near, hard ones far down the list, junk between.
Values are multiples of 2^-11, so that float32 products are exact, many are equal, and no rank may differ. Each
version runs in its own processes, in turn. Seconds are medians, also those of all cores together (CPU); memory is the
peak RAM of a process (VmHWM) in addition to what it used with the descriptors loaded. The plain version is the
published procedure, with the stable sort that breaks ties as ours does, and with numpy's fastest sort. The bare
product is in float32, by parts of the gallery, so that scores stay in the core's cache: no comparison of descriptors
can be faster. `--before` compares with the ranking of another checkout instead of the plain versions, and prints
whether all ranks and scores are the same. `--large` ranks 1,001,001 descriptors of 2,048 values, 8.2 GB, from a
memory-mapped file instead, and measures the whole process, including pages of the mapped file. With `--root`, the
files are kept there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from dolglab.concurrency import available_cores
from dolglab.contracts import DIFFICULTIES, Evaluation, GroundTruth, Scores
from dolglab.measures import RevisitedMeasure, ground_truth_ids_of
from dolglab.retrieval.ranking import exact_ranking

QUERIES, ROUNDS, KAPPAS, TOP = 70, 5, (1, 5, 10), 100
# The number of images of each kind per query, and the range of their cosines.
PLANTED = {"easy": (40, 0.15, 0.6), "hard": (60, -0.05, 0.2), "junk": (50, 0.1, 0.6)}
MADE_AT_ONCE = 20_000
# Images whose products with 70 queries stay in a core's cache.
PRODUCT_AT_ONCE = 512
WAYS = ("ours", "product", "plain", "plain, unstable", "before")


def main() -> None:
    """Make missing descriptors, measure, and print."""
    parser = argparse.ArgumentParser(description="Exact ranking of a million images.")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--images", type=int)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    images, dim = options.images or (1_001_001 if options.large else 1_000_000), 2048 if options.large else 512
    if options.measure:
        print(json.dumps(measure(options.root, options.measure, options.large)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        if not (root / "queries.npy").exists():
            make(root, images, dim)
        print(f"{QUERIES} queries x {images:,} images x {dim} values, {available_cores()} threads, medians of {ROUNDS}")
        report_large(root) if options.large else report(root, options.before)


def make(root: Path, images: int, dim: int) -> None:
    """Descriptors of gallery and queries, and which images are planted."""
    size = images * dim * 4
    if shutil.disk_usage(root).free < 1.1 * size:
        raise SystemExit(f"{root} has no room for {size / 1e9:.1f} GB: give another folder with --root")
    rng = np.random.default_rng(0)
    queries = coarse(unit(rng.standard_normal((QUERIES, dim), dtype=np.float32)))
    counts = [count for count, _, _ in PLANTED.values()]
    places = rng.permutation(images)[: QUERIES * sum(counts)].reshape(QUERIES, -1)
    gallery = open_memmap(root / "gallery.npy", "w+", np.float32, (images, dim))
    for start in range(0, images, MADE_AT_ONCE):
        stop = min(start + MADE_AT_ONCE, images)
        gallery[start:stop] = coarse(unit(rng.standard_normal((stop - start, dim), dtype=np.float32)))
    for query, own in zip(queries, places, strict=True):
        cosines = np.concatenate([rng.uniform(low, high, count) for count, low, high in PLANTED.values()])[:, None]
        beside = unit(gallery[own] - (gallery[own] @ query)[:, None] * query)
        gallery[own] = coarse(cosines * query + np.sqrt(1 - cosines**2) * beside)
    gallery.flush()
    np.save(root / "places.npy", places)
    np.save(root / "queries.npy", queries)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length one."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def coarse(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of multiples of 2^-11."""
    return (np.round(2048 * rows) / 2048).astype(np.float32)


def report(root: Path, before: Path | None) -> None:
    """Measure all versions in turn."""
    runs: dict[str, list[dict]] = {way: [] for way in (("ours", "product", "before") if before else WAYS[:-1])}
    for _ in range(ROUNDS):
        for way, found in runs.items():
            found.append(run(root, way, before=before if way == "before" else None))
    seconds, cpu, memory = (
        {way: statistics.median(run[key] for run in found) for way, found in runs.items()}
        for key in ("seconds", "cpu", "megabytes")
    )
    for way, found in runs.items():
        costs = f"{seconds[way]:6.2f} s, {cpu[way]:5.2f} s CPU, {memory[way]:5.0f} MB beyond the descriptors"
        print(f"{way:<16}{costs}   {line(found[0])}")
    ours = runs["ours"][0]
    for way in [way for way in runs if way != "ours"]:
        print(
            f"{way}: {seconds[way] / seconds['ours']:.2f} times our time ({cpu[way] / cpu['ours']:.2f} of CPU), "
            f"{memory[way] / memory['ours']:.1f} times our memory"
        )
    print(
        f"ours: {seconds['ours'] / seconds['product']:.2f} times the bare product's time "
        f"({cpu['ours'] / cpu['product']:.2f} of CPU)"
    )
    for way in [way for way in runs if way.startswith("plain")]:
        figures = runs[way][0]["figures"]
        apart = max(np.abs(np.subtract(own, figures[name])).max() for name, own in ours["figures"].items())
        print(f"{way}: no figure, APs of single queries included, differs from ours by more than {apart:.0e}")
    if before:
        print(f"before: {'the same' if runs['before'][0]['ranked'] == ours['ranked'] else 'OTHER'} ranks and scores")


def report_large(root: Path) -> None:
    """Only ours: the plain version would need more memory than the file."""
    found = [run(root, "ours", "--large") for _ in range(ROUNDS)]
    seconds, cpu, memory = (statistics.median(run[key] for run in found) for key in ("seconds", "cpu", "whole"))
    print(
        f"{seconds:.1f} s, {cpu:.1f} s CPU, at most {memory / 1024:.2f} GiB in RAM (whole process)   {line(found[0])}"
    )


def line(found: dict) -> str:
    """The figures of a run, in short."""
    mean = {name: values for name, values in found["figures"].items() if not name.endswith(" ap")}
    return ", ".join(f"{name} {'/'.join(f'{100 * value:.2f}' for value in values)}" for name, values in mean.items())


def run(root: Path, way: str, *more: str, before: Path | None = None) -> dict:
    """`measure` in its own process, with the package of the checkout `before`, if given."""
    command = [sys.executable, __file__, "--root", str(root), "--measure", way, *more]
    path = {} if before is None else {"PYTHONPATH": str(before / "src")}
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **path}
    return json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)


def measure(root: Path, way: str, mapped: bool) -> dict:
    """Seconds, CPU seconds, peak megabytes beyond the descriptors and in all, and figures, of one run."""
    gallery = np.load(root / "gallery.npy", mmap_mode="r" if mapped else None)
    queries, places = np.load(root / "queries.npy"), np.load(root / "places.npy")
    ends = np.cumsum([count for count, _, _ in PLANTED.values()])[:-1]
    truth = GroundTruth(*(tuple(part) for part in np.split(places, ends, axis=1)))
    Path("/proc/self/clear_refs").write_text("5")
    before, start, cpu = status_megabytes("VmRSS"), time.perf_counter(), time.process_time()
    ranked, found = None, None
    if way == "product":
        bare_product(gallery, queries)
    elif way in ("ours", "before"):
        ranked = exact_ranking(gallery, queries, ground_truth_ids_of(truth), TOP)
        found = RevisitedMeasure(KAPPAS).figures(truth, dict.fromkeys(DIFFICULTIES, ranked)).evaluation
    else:
        found = plain_evaluation(gallery, queries, truth, "stable" if way == "plain" else None)
    seconds, cpu, whole = time.perf_counter() - start, time.process_time() - cpu, status_megabytes("VmHWM")
    figures: dict[str, list[float]] = {}
    for difficulty, scores in (found or {}).items():
        figures[difficulty], figures[f"{difficulty} mP@k"] = [scores["map"]], scores["mp_at_k"].tolist()
        figures[f"{difficulty} ap"] = scores["ap"].tolist()
    digest = hashlib.sha256()
    for part in () if ranked is None else (ranked.top_k, ranked.scores, *ranked.ranks):
        digest.update(part.tobytes())
    costs = {"seconds": seconds, "cpu": cpu, "megabytes": whole - before, "whole": whole}
    return {**costs, "figures": figures, "ranked": digest.hexdigest()}


def bare_product(gallery: NDArray[np.float32], queries: NDArray[np.float32]) -> None:
    """All products, none of them kept."""
    rows, asked = torch.from_numpy(gallery), torch.from_numpy(queries)
    scores = torch.empty(len(asked), PRODUCT_AT_ONCE)
    for part in rows.split(PRODUCT_AT_ONCE):
        torch.mm(asked, part.T, out=scores[:, : len(part)])


def plain_evaluation(
    gallery: NDArray[np.float32], queries: NDArray[np.float32], truth: GroundTruth, kind: Literal["stable"] | None
) -> Evaluation:
    """All products, all of them sorted, and for each query masks over the whole list."""
    scores = (torch.from_numpy(queries) @ torch.from_numpy(gallery).T).numpy()
    ranks = np.argsort(-scores, axis=1, kind=kind)
    kinds = list(zip(truth.easy, truth.hard, truth.junk, strict=True))
    return {
        "easy": plain_scores(ranks, [(easy, np.concatenate([hard, junk])) for easy, hard, junk in kinds]),
        "medium": plain_scores(ranks, [(np.concatenate([easy, hard]), junk) for easy, hard, junk in kinds]),
        "hard": plain_scores(ranks, [(hard, np.concatenate([easy, junk])) for easy, hard, junk in kinds]),
    }


def plain_scores(ranks: NDArray[np.int64], truth: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Scores:
    """One difficulty's figures."""
    aps, precisions = [], []
    for ranking, (positives, ignored) in zip(ranks, truth, strict=True):
        places = np.arange(len(ranking))
        found = places[np.isin(ranking, positives)]
        junk = places[np.isin(ranking, ignored)]
        found = [place - sum(1 for other in junk if other < place) for place in found]
        ap = 0.0
        for hits, place in enumerate(found):
            ap += ((hits / place if place else 1.0) + (hits + 1) / (place + 1)) / 2 / len(positives)
        aps.append(ap)
        cuts = [min(found[-1] + 1, kappa) for kappa in KAPPAS]
        precisions.append([sum(place < cut for place in found) / cut for cut in cuts])
    return {"map": float(np.mean(aps)), "ap": np.array(aps), "mp_at_k": np.mean(precisions, axis=0)}


def status_megabytes(field: str) -> float:
    """A value of /proc/self/status, in MB (there in kB)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()

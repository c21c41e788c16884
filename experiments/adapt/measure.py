"""The gain and the cost of adapting a library to a folder of labelled photos that it contains.

PYTHONPATH=. python experiments/adapt/measure.py FOLDER LIBRARY
PYTHONPATH=. python experiments/adapt/measure.py --made-up PHOTOS DIM LANDMARKS
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from dolglab.contracts import Benchmark, FloatArray, IntArray
from dolglab.data.folder import SplitMode, split_folder
from dolglab.library.adapter_learning import CANDIDATES, Learner, average_precisions, choose, compressed, learn
from dolglab.library.library import Library

SEEDS = range(5)
# The splits of the trainings in experiments/photos.
SPLITS: dict[SplitMode, range] = {"photos": range(3), "landmarks": range(6)}


def main(folder: str, library: str) -> None:
    """Print a table of the command's own test by seed, one of each kind of map, and one on the splits of trainings."""
    names, rows = described(library, folder)
    labels = np.unique([name.split("/")[0] for name in names], return_inverse=True)[1].astype(np.int64)
    print("| seed | chosen | before | same landmarks | never seen | CPU s |\n|---|---|---:|---:|---:|---:|")
    for seed in SEEDS:
        print_test(f"{seed} |", rows, labels, seed)
    print("\n| kind, seed 0 | | before | same landmarks | never seen | CPU s |\n|---|---|---:|---:|---:|---:|")
    for kind, learner in CANDIDATES.items():
        print_test(f"{kind} |", rows, labels, 0, {kind: learner})
    place = {name: row for row, name in enumerate(names)}
    for mode, seeds in SPLITS.items():
        scores = np.array([split_scores(folder, mode, seed, place, rows) for seed in seeds])
        gains = scores[:, 1] - scores[:, 0]
        error = gains.std(ddof=1) / len(gains) ** 0.5
        (before, after), (spread, other) = scores.mean(0), scores.std(0, ddof=1)
        print(
            f"\n{mode} of {len(seeds)} splits: {before:.2f} ± {spread:.2f} -> {after:.2f} ± {other:.2f}, "
            f"{gains.mean():+.2f} ({error:.2f})",
            flush=True,
        )


def print_test(
    begin: str, rows: FloatArray, labels: IntArray, seed: int, candidates: Mapping[str, Learner] = CANDIDATES
) -> None:
    """A table row with the gains that `learn` reports."""
    start = time.process_time()
    learnt = learn(rows, labels, seed, candidates)
    seconds = time.process_time() - start
    figures = [gain.figures() for gain in (learnt.seen, learnt.unseen)]
    cells = [f"{100 * f['gain']:+.2f} ({100 * f['low']:+.2f} to {100 * f['high']:+.2f})" for f in figures]
    print(
        f"| {begin} {learnt.kind} | {100 * figures[0]['before']:.2f} | {' | '.join(cells)} | {seconds:.1f} |",
        flush=True,
    )


def split_scores(
    folder: str, mode: SplitMode, seed: int, place: dict[str, int], rows: FloatArray
) -> tuple[float, float]:
    """mAP in percent of the test part of a split, before and after adapting by a map learnt from its training part."""
    training, _, test = split_folder(folder, mode, seed=seed)
    own = np.array([place[training.source.name(row)] for row in range(len(training.source))])
    kind = choose(rows[own], training.labels, seed, CANDIDATES)
    affine = compressed(CANDIDATES[kind])(rows[own], training.labels)
    asked = np.array([place[test.source.name(row)] for row in range(test.num_gallery)])
    shown, everyone = landmarks_of(test), np.arange(test.num_gallery)
    before, after = (
        100 * float(np.nanmean(average_precisions(each, shown, everyone)))
        for each in (rows[asked], affine(rows[asked]))
    )
    return before, after


def landmarks_of(benchmark: Benchmark) -> IntArray:
    """The landmark of each image of a folder's benchmark."""
    names = [benchmark.source.name(row).split("/")[0] for row in range(benchmark.num_gallery)]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def described(library: str, folder: str) -> tuple[list[str], FloatArray]:
    """Names, below a folder, of a library's photos, and their descriptors, (n, dim)."""
    root = Path(folder).resolve()
    with closing(Library(library)) as opened:
        pages = (entry for page in opened.catalogue.pages() for entry in page if entry[1] is not None)
        # The order in which the command splits them.
        entries = sorted(pages, key=lambda entry: entry[0].name)
        rows = opened.descriptors(np.array([key for _, key in entries], np.int64))
    return [Path(photo.name).resolve().relative_to(root).as_posix() for photo, _ in entries], rows


def made_up(photos: int, dim: int, landmarks: int) -> tuple[FloatArray, IntArray]:
    """Synthetic landmarks in all directions, with photos that vary more in some directions than in others."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, landmarks, photos)
    spread = generator.uniform(0.5, 4, dim)
    rows = generator.normal(size=(landmarks, dim))[labels] + generator.normal(size=(photos, dim)) * spread
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="a folder with one sub-folder per landmark")
    parser.add_argument("library", nargs="?", help="a library with its photos")
    parser.add_argument("--made-up", type=int, nargs=3, metavar=("PHOTOS", "DIM", "LANDMARKS"))
    arguments = parser.parse_args()
    if arguments.made_up is not None:
        print_test(f"{' x '.join(map(str, arguments.made_up))} |", *made_up(*arguments.made_up), seed=0)
    elif arguments.library is not None:
        main(arguments.folder, arguments.library)
    else:
        parser.error("give FOLDER and LIBRARY, or --made-up")

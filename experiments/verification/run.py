"""Spatial verification by XFeat and by RootSIFT: how well inliers tell photos of one landmark, and what that costs.

    PYTHONPATH=src:. python experiments/verification/run.py settings ../shared/data/provence
    PYTHONPATH=src:. python experiments/verification/run.py compare ../shared/data/provence

A folder has a sub-folder a landmark. Each photo asks the others by the descriptors that `dolglab embed` makes without a
network to be had; its first 50 answers are verified. A pair of a photo and an answer is right where both are of one
landmark. `settings` changes one setting at a time, every fifth photo asks; `compare` takes the best of both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import LocalFeatures
from dolglab.data.colour import Pixels
from dolglab.data.image_reading import shrink
from dolglab.data.photos import photo_pixels
from dolglab.extraction.rootsift import RootSIFT
from dolglab.extraction.xfeat import XFeat
from dolglab.retrieval.rerank.spatial import Spatial
from dolglab.sharing.loading import load_extractor

VERIFIED, FALSE_POSITIVES = 50, 0.01
# Of each method: features, longer side of the photo in pixels, and what `Spatial` takes.
Settings = dict[str, float | str]
BEST: dict[str, Settings] = {
    "RootSIFT": {"features": 1000, "side": 1024, "kind": "affine", "residual": 10.0, "iterations": 1000, "ratio": 0.9},
    "XFeat": {"features": 1000, "side": 640, "kind": "affine", "residual": 10.0, "iterations": 1000, "least": 0.82},
}
OTHERS: dict[str, dict[str, Sequence[float | str]]] = {
    "RootSIFT": {
        "features": (500, 2000),
        "side": (384,),
        "kind": ("homography",),
        "residual": (5.0, 20.0),
        "iterations": (500, 2000),
        "ratio": (0.8, 0.85, 0.95),
    },
    "XFeat": {
        "features": (500, 2000),
        "side": (384,),
        "kind": ("homography",),
        "residual": (5.0, 20.0),
        "iterations": (500, 2000),
        "least": (0.7, 0.78, 0.86, 0.9),
        "ratio": (0.9, 0.95),
    },
}
MOST_FEATURES = 2000
ROUNDS, TIMED_QUERIES = 5, 6


@dataclass(frozen=True)
class Photos:
    """Photos by landmark: files, pixels as a library reads them, landmarks, and the answers to each, (n, 50)."""

    files: list[Path]
    pixels: list[Pixels]
    landmarks: NDArray[np.str_]
    answers: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        return self.landmarks[self.answers] == self.landmarks[:, None]


def read(folder: Path) -> Photos:
    """Photos of a folder, asked by the untrained network."""
    loaded = load_extractor(None, threads=1)
    files = sorted(folder.glob("*/*.jpg"))
    pixels = [photo_pixels(str(file), loaded.identity["max_side"], reading=loaded.reading) for file in files]
    descriptors = loaded.describe(pixels)
    cosines = descriptors @ descriptors.T
    np.fill_diagonal(cosines, -np.inf)
    answers = np.argsort(-cosines, 1, kind="stable")[:, :VERIFIED]
    return Photos(files, pixels, np.array([file.parent.name for file in files]), answers)


def extractor(method: str, count: int) -> RootSIFT | XFeat:
    return RootSIFT(max_features=count) if method == "RootSIFT" else XFeat(max_features=count, threads=1)


def described(photos: Photos, method: str, side: int) -> list[LocalFeatures]:
    """The strongest features of every photo."""
    extract = extractor(method, MOST_FEATURES).extract
    return [extract(shrink(pixels, side)) for pixels in photos.pixels]


def strongest(features: LocalFeatures, count: int) -> LocalFeatures:
    parts = {part: getattr(features, part)[:count] for part in ("keypoints", "sizes", "scores", "descriptors")}
    return replace(features, **parts)


def verifier(settings: Mapping[str, float | str]) -> Spatial:
    return Spatial(VERIFIED, **{key: value for key, value in settings.items() if key not in ("features", "side")})


def inlier_counts(
    photos: Photos, features: Sequence[LocalFeatures], settings: Settings, queries: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Inliers of the queries and their answers, (queries, 50)."""
    spatial = verifier(settings)
    own = [strongest(each, int(settings["features"])) for each in features]
    rows = [[spatial.verified(own[q], own[a]).count for a in photos.answers[q].tolist()] for q in queries.tolist()]
    return np.array(rows)


def least_inliers(counts: NDArray[np.int64], right: NDArray[np.bool_]) -> int:
    """The fewest inliers that at most so many of the wrong pairs have."""
    wrong = counts[~right]
    return next(least for least in range(1, wrong.max() + 2) if (wrong >= least).mean() <= FALSE_POSITIVES)


def first_right(counts: NDArray[np.int64], right: NDArray[np.bool_], least: int) -> int:
    """How many queries have a right first answer once those of `least` inliers or more come first, most first."""
    order = np.argsort(-np.where(counts >= least, counts, 0), 1, kind="stable")
    return int(np.take_along_axis(right, order[:, :1], 1).sum())


def variants(method: str) -> Iterator[tuple[str, Settings]]:
    yield "as chosen", BEST[method]
    for key, values in OTHERS[method].items():
        for value in values:
            yield f"{key} {value}", {**BEST[method], key: value}


def report(name: str, counts: NDArray[np.int64], right: NDArray[np.bool_]) -> None:
    least = least_inliers(counts, right)
    first = first_right(counts, right, least)
    recalled = int((counts >= least)[right].sum())
    print(
        f"| {name} | {least} | {recalled} | {100 * recalled / right.sum():.1f} | {first} of {len(right)} |", flush=True
    )


def print_head(photos: Photos, queries: NDArray[np.int64]) -> NDArray[np.bool_]:
    right = photos.right[queries]
    print(f"{len(photos.files)} photos, {len(queries)} ask; {right.sum()} of {right.size} pairs are right;")
    print(f"first answers right before: {right[:, 0].sum()} of {len(right)}\n")
    print(
        "| | inliers at 1 % false positives | right pairs recalled | % | first answers right |\n|---|---:|---:|---:|---:|"
    )
    return right


def try_settings(photos: Photos, every: int) -> None:
    queries = np.arange(0, len(photos.files), every)
    right = print_head(photos, queries)
    for method in BEST:
        features = {side: described(photos, method, side) for side in {int(s["side"]) for _, s in variants(method)}}
        for name, settings in variants(method):
            counts = inlier_counts(photos, features[int(settings["side"])], settings, queries)
            report(f"{method}, {name}", counts, right)


def compare(photos: Photos) -> None:
    queries = np.arange(len(photos.files))
    right = print_head(photos, queries)
    for method, settings in BEST.items():
        features = described(photos, method, int(settings["side"]))
        report(method, inlier_counts(photos, features, settings, queries), right)
    print_seconds(photos)


def print_seconds(photos: Photos) -> None:
    """CPU seconds of a query's verification from its answers' files, and from features that are kept."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(ROUNDS):
        for method, settings in BEST.items():
            extract = extractor(method, int(settings["features"])).extract
            spatial = verifier(settings)
            side = int(settings["side"])
            for query in range(number, len(photos.files), len(photos.files) // TIMED_QUERIES):
                start = time.process_time()
                ours = extract(shrink(photos.pixels[query], side))
                files = [str(photos.files[a]) for a in photos.answers[query].tolist()]
                theirs = [extract(photo_pixels(file, side)) for file in files]
                middle = time.process_time()
                for each in theirs:
                    spatial.verified(ours, each)
                end = time.process_time()
                for part, value in (("describing", middle - start), ("matching", end - middle)):
                    seconds.setdefault((method, part), []).append(value)
    print("\nCPU seconds of one search of 50 answers, medians:\n")
    for (method, part), values in seconds.items():
        print(f"- {method}, {part}: {statistics.median(values):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["settings", "compare"])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--every", type=int, default=5, help="of `settings`: which photos ask")
    arguments = parser.parse_args()
    # A core for each, so that CPU time is what was worked.
    cv2.setNumThreads(1)
    if arguments.what == "settings":
        try_settings(read(arguments.photos), arguments.every)
    else:
        compare(read(arguments.photos))

"""Spatial verification by XFeat and by RootSIFT: how well inliers identify pairs of one landmark, and the cost.

    PYTHONPATH=src:. python experiments/verification/run.py settings ../shared/data/provence
    PYTHONPATH=src:. python experiments/verification/run.py compare ../shared/data/provence
    PYTHONPATH=src:. python experiments/verification/run.py seconds ../shared/data/provence

A folder has one sub-folder per landmark. Each photo is a query for the others, by the descriptors that `dolglab
embed` computes without internet access; its first 50 answers are verified. A pair of photos is right if both show the
same landmark. `settings` changes one setting at a time, with every fifth photo as query; `compare` uses the best
settings of both, and `seconds` measures their cost, in turn. The number of inliers is the smallest that at most one
in a hundred wrong pairs reaches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import LocalFeatures
from dolglab.data.colour import Pixels
from dolglab.data.image_reading import shrink
from dolglab.data.photos import photo_pixels
from dolglab.extraction.rootsift import RootSIFT
from dolglab.extraction.xfeat import XFeat
from dolglab.library.packing import pack, unpack
from dolglab.retrieval.rerank.spatial import Spatial
from dolglab.sharing.loading import load_extractor

VERIFIED, FALSE_POSITIVES = 50, 0.01


class Settings(NamedTuple):
    """Settings: features of a photo, the longer side at which they are described, and arguments of `Spatial`."""

    features: int
    side: int
    spatial: Mapping[str, Any]

    def but(self, key: str, value: Any) -> Settings:
        """These settings with another value of one of them."""
        if key in self._fields:
            return self._replace(**{key: value})
        return self._replace(spatial={**self.spatial, key: value})


# The previous settings, the best ones of RootSIFT, and those of XFeat.
BEFORE = Settings(1000, 1024, {"kind": "affine", "residual": 10.0, "iterations": 1000, "ratio": 0.9})
BEST = {
    "RootSIFT": Settings(2000, 1024, {"kind": "affine", "residual": 20.0, "iterations": 1000, "ratio": 0.95}),
    "XFeat": Settings(1000, 640, {"kind": "affine", "residual": 12.0, "iterations": 1000, "least": 0.75}),
}
OTHERS: dict[str, dict[str, Sequence[Any]]] = {
    "RootSIFT": {
        "features": (500, 1000),
        "side": (384,),
        "kind": ("homography",),
        "residual": (5.0, 10.0),
        "iterations": (500, 2000),
        "ratio": (0.8, 0.85, 0.9, 1.0),
    },
    "XFeat": {
        "features": (500, 2000),
        "side": (384, 512, 960),
        "kind": ("homography",),
        "residual": (6.0, 20.0),
        "iterations": (500, 2000),
        "least": (0.65, 0.82, 0.88),
        "ratio": (0.95,),
    },
}
METHODS = [("RootSIFT as before", "RootSIFT", BEFORE), *((name, name, best) for name, best in BEST.items())]
MOST_FEATURES = 2000
ROUNDS, TIMED_QUERIES = 3, 2


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
    """Photos of a folder, searched with the untrained network."""
    loaded = load_extractor(None, threads=1)
    files = sorted(folder.glob("*/*.jpg"))
    pixels = [photo_pixels(str(file), loaded.identity["max_side"], reading=loaded.reading) for file in files]
    descriptors = loaded.describe(pixels)
    cosines = descriptors @ descriptors.T
    np.fill_diagonal(cosines, -np.inf)
    answers = np.argsort(-cosines, 1, kind="stable")[:, :VERIFIED]
    return Photos(files, pixels, np.array([file.parent.name for file in files]), answers)


def extractor(method: str, count: int, side: int) -> RootSIFT | XFeat:
    return RootSIFT(max_features=count) if method == "RootSIFT" else XFeat(max_features=count, side=side, threads=1)


def described(photos: Photos, method: str, side: int) -> list[LocalFeatures]:
    """The strongest features of every photo."""
    extract = extractor(method, MOST_FEATURES, side).extract
    return [extract(shrink(pixels, side)) for pixels in photos.pixels]


def strongest(features: LocalFeatures, count: int) -> LocalFeatures:
    parts = {part: getattr(features, part)[:count] for part in ("keypoints", "sizes", "scores", "descriptors")}
    return replace(features, **parts)


def inlier_counts(
    photos: Photos, features: Sequence[LocalFeatures], settings: Settings, queries: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Numbers of inliers of queries and their answers, (queries, 50)."""
    spatial = Spatial(VERIFIED, **settings.spatial)
    own = [strongest(each, settings.features) for each in features]
    rows = [[spatial.verified(own[q], own[a]).count for a in photos.answers[q].tolist()] for q in queries.tolist()]
    return np.array(rows)


def least_inliers(counts: NDArray[np.int64], right: NDArray[np.bool_]) -> int:
    """The smallest number of inliers that at most `FALSE_POSITIVES` of the wrong pairs reach."""
    wrong = counts[~right]
    return next(least for least in range(1, wrong.max() + 2) if (wrong >= least).mean() <= FALSE_POSITIVES)


def first_right(counts: NDArray[np.int64], right: NDArray[np.bool_], least: int) -> int:
    """The number of queries with a right first answer if answers with at least `least` inliers come first."""
    order = np.argsort(-np.where(counts >= least, counts, 0), 1, kind="stable")
    return int(np.take_along_axis(right, order[:, :1], 1).sum())


def variants(method: str) -> Iterator[tuple[str, Settings]]:
    yield "as chosen", BEST[method]
    for key, values in OTHERS[method].items():
        for value in values:
            yield f"{key} {value}", BEST[method].but(key, value)


def report(name: str, counts: NDArray[np.int64], right: NDArray[np.bool_]) -> None:
    least = least_inliers(counts, right)
    first = first_right(counts, right, least)
    recalled = int((counts >= least)[right].sum())
    print(
        f"| {name} | {least} | {recalled} | {100 * recalled / right.sum():.1f} | {first} of {len(right)} |", flush=True
    )


def print_head(photos: Photos, queries: NDArray[np.int64]) -> NDArray[np.bool_]:
    right = photos.right[queries]
    print(f"{len(photos.files)} photos, {len(queries)} queries; {right.sum()} of {right.size} pairs are right;")
    print(f"first answers right before: {right[:, 0].sum()} of {len(right)}\n")
    print("| | inliers | right pairs recalled | % | first answers right |\n|---|---:|---:|---:|---:|", flush=True)
    return right


def try_settings(photos: Photos, every: int) -> None:
    queries = np.arange(0, len(photos.files), every)
    right = print_head(photos, queries)
    for method in BEST:
        features = {side: described(photos, method, side) for side in {s.side for _, s in variants(method)}}
        for name, settings in variants(method):
            counts = inlier_counts(photos, features[settings.side], settings, queries)
            report(f"{method}, {name}", counts, right)


def compare(photos: Photos, only: str, out: Path | None) -> None:
    queries = np.arange(len(photos.files))
    right = print_head(photos, queries)
    for name, method, settings in METHODS:
        if only in name:
            counts = inlier_counts(photos, described(photos, method, settings.side), settings, queries)
            report(name, counts, right)
            if out is not None:
                np.savez(out / f"{name}.npz", counts=counts, right=right)


def print_seconds(photos: Photos) -> None:
    """CPU seconds to verify a query's answers: extracting features from their files, and matching."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(ROUNDS):
        for name, method, settings in METHODS:
            extract = extractor(method, settings.features, settings.side).extract
            spatial = Spatial(VERIFIED, **settings.spatial)
            for query in range(number, len(photos.files), len(photos.files) // TIMED_QUERIES):
                ours = extract(photos.pixels[query])
                files = [str(photos.files[a]) for a in photos.answers[query].tolist()]
                start = time.process_time()
                theirs = [extract(photo_pixels(file, settings.side)) for file in files]
                kept = [pack(each) for each in theirs]
                middle = time.process_time()
                for each in kept:
                    spatial.verified(ours, unpack(each, ours.descriptors.shape[1]))
                end = time.process_time()
                for part, value in (("describing", middle - start), ("matching", end - middle)):
                    seconds.setdefault((name, part), []).append(value)
    for (name, part), values in seconds.items():
        print(f"{name}, {part}: {statistics.median(values):.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["settings", "compare", "seconds"])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--every", type=int, default=5, help="of `settings`: every n-th photo is a query")
    parser.add_argument("--only", default="", help="of `compare`: only methods with this in their names")
    parser.add_argument("--out", type=Path, help="of `compare`: folder for the numbers of inliers")
    arguments = parser.parse_args()
    # One thread each, so that CPU time measures the work.
    cv2.setNumThreads(1)
    found = read(arguments.photos)
    if arguments.what == "settings":
        try_settings(found, arguments.every)
    elif arguments.what == "compare":
        compare(found, arguments.only, arguments.out)
    else:
        print_seconds(found)

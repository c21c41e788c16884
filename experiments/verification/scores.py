"""Other scores than the number of inliers, from XFeat's nearest-neighbour matches: how well they find right pairs.

    PYTHONPATH=src:. python experiments/verification/scores.py ../shared/data/provence --queries 240

Queries are in a seeded order, as in learned_matcher.py. Prints the share of right pairs that score above all but 1 %
of the wrong ones: for every other query (to choose a score), for the remaining ones (to confirm it), and for all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from experiments.verification.run import BEST, FALSE_POSITIVES, VERIFIED, described, read, strongest
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from dolglab.contracts import LocalFeatures
from dolglab.retrieval.rerank.geometry import inliers
from dolglab.retrieval.rerank.spatial import Spatial

SQUARE = 32


def scores(a: LocalFeatures, b: LocalFeatures) -> dict[str, float]:
    """The scores of two photos' matches."""
    settings = BEST["XFeat"].spatial
    match = Spatial(VERIFIED, **settings).verified(a, b)
    points = a.keypoints[match.matches[:, 0]], b.keypoints[match.matches[:, 1]]
    homography = inliers(*points, "homography", settings["residual"], settings["iterations"])[0]
    kept = match.matches[match.inlier]
    ours, theirs = a.descriptors.astype(np.float32), b.descriptors.astype(np.float32)
    cosines = np.einsum("nd,nd->n", ours[kept[:, 0]], theirs[kept[:, 1]])
    second = np.maximum(_second(ours, theirs, kept), _second(theirs, ours, kept[:, ::-1]))
    squares = [np.unique(own[match.inlier] // SQUARE, axis=0) for own in points]
    return {
        "inliers": match.count,
        "inliers of a homography": homography.sum(),
        "inliers^2 / matches": match.count**2 / max(1, len(match.matches)),
        "inliers / features of the answer": match.count / max(1, len(b)),
        f"squares of {SQUARE} pixels with inliers": min(map(len, squares)),
        "sum of cosine - 0.7": (cosines - 0.7).sum(),
        "inliers of cosine 0.8": (cosines >= 0.8).sum(),
        "inliers of ratio 0.98 both ways": (1 - cosines <= 0.98**2 * (1 - second)).sum(),
        "sum of cosine - second cosine": (cosines - second).sum(),
        "sum of 1 - ratio^2": (1 - (1 - cosines) / np.maximum(1 - second, 1e-6)).sum(),
    }


def _second(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], kept: NDArray[np.int64]) -> NDArray[np.float32]:
    """The cosine of matched rows of `a` with the best of `b` other than their match."""
    cosines = a[kept[:, 0]] @ b.T
    cosines[np.arange(len(kept)), kept[:, 1]] = -1
    return cosines.max(1, initial=-1)


def recalled(values: NDArray[np.float64], right: Bool[np.ndarray, "q k"]) -> float:
    """Percentage of right pairs above all but `FALSE_POSITIVES` of the wrong ones."""
    wrong = np.sort(values[~right])[::-1]
    return 100 * float((values[right] > wrong[int(FALSE_POSITIVES * len(wrong))]).mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--queries", type=int, default=240)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    found = read(arguments.photos)
    asking = np.random.default_rng(0).permutation(len(found.files))[: arguments.queries]
    own = [strongest(each, BEST["XFeat"].features) for each in described(found, "XFeat", BEST["XFeat"].side)]
    pairs = [[scores(own[q], own[a]) for a in found.answers[q].tolist()] for q in asking.tolist()]
    truth = found.right[asking]
    print(f"{len(asking)} queries; {(~truth).sum()} of {truth.size} pairs are wrong\n")
    print("| | chosen on | confirmed on | all |\n|---|---:|---:|---:|")
    for name in pairs[0][0]:
        made = np.array([[pair[name] for pair in row] for row in pairs], np.float64)
        shares = [recalled(made[part], truth[part]) for part in (slice(0, None, 2), slice(1, None, 2), slice(None))]
        print(f"| {name} | {' | '.join(f'{share:.1f}' for share in shares)} |")

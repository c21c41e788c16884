"""Find the matches between two images that agree with one transformation: RANSAC, with residuals in both images."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

Kind = Literal["affine", "homography"]
# Matches that determine a transformation, by kind.
MINIMUM: dict[Kind, int] = {"affine": 3, "homography": 4}
SAMPLE = 3
# The largest change in size, and in aspect ratio, from one view to the other. Beyond it local features no longer match,
# while most samples of wrong matches exceed it.
ZOOM, SQUEEZE = 5.0, 4.0
# Random samples are evaluated in parts, until one of them is correct with this probability (Fischler and Bolles, 1981).
SAMPLES_AT_ONCE, CONFIDENCE = 200, 0.9999
# The number of best samples that are refined, and the largest number of rounds.
REFINED, ROUNDS = 3, 10
# The number of descriptors compared at a time (their cosines fit into the cache), and of residuals computed at a time.
ROWS_AT_ONCE, RESIDUALS_AT_ONCE = 512, 262_144

Points = Float[np.ndarray, "m 2"]
Homogeneous = Float[np.ndarray, "m 3"]
Transformation = Float[np.ndarray, "3 3"]
Transformations = Float[np.ndarray, "k 3 3"]


def mutual_matches(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], ratio: float = 1.0, min_cosine: float = -1.0
) -> Int[np.ndarray, "k 2"]:
    """Rows of `a` and `b` that are each other's nearest neighbours, (k, 2), in the order of `a`.

    Args:
        a, b: L2-normalised descriptors of any precision; ties are resolved by position.
        ratio: largest ratio of the distances to the nearest and the second nearest of `b` (Lowe, IJCV 2004); 1 disables
            the test.
        min_cosine: smallest cosine of a match.

    >>> mutual_matches(np.eye(3, 2), np.array([[0.0, 1.0], [1.0, 0.0]])).tolist()
    [[0, 1], [1, 0]]
    """
    if not len(a) or not len(b):
        return np.empty((0, 2), np.int64)
    # Imported here, because a search does not need it.
    import cv2

    a, b = np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b, np.float32)
    nearest = np.empty(len(a), np.int64)
    best, second = np.empty((2, len(a)), np.float32)
    best_of_others = np.full(len(b), -np.inf, np.float32)
    for start in range(0, len(a), ROWS_AT_ONCE):
        # NumPy's threads spin while waiting: on a busy machine a product as small as this takes ten times as long.
        part = a[start : start + ROWS_AT_ONCE]
        cosines = np.asarray(cv2.gemm(part, b, 1, None, 0, flags=cv2.GEMM_2_T))  # pyright: ignore[reportCallIssue, reportArgumentType]
        at = slice(start, start + len(cosines))
        rows = np.arange(len(cosines))
        nearest[at] = cosines.argmax(1)
        best[at] = cosines[rows, nearest[at]]
        np.maximum(best_of_others, cosines.max(0), out=best_of_others)
        if ratio < 1:
            cosines[rows, nearest[at]] = -np.inf
            second[at] = cosines.max(1)
    # Mutual neighbours are found by values: the positions of the columns' maxima would take ten times as long.
    kept = (best == best_of_others[nearest]) & (best >= min_cosine)
    if ratio < 1 and len(b) > 1:
        # The squared distance of two unit vectors is 2 - 2 cos.
        kept &= np.maximum(1 - best, 0) <= ratio**2 * np.maximum(1 - second, 0)
    found = np.flatnonzero(kept)
    # Of equal descriptors in `a`, keep the first.
    found = np.sort(found[np.unique(nearest[found], return_index=True)[1]])
    return np.stack([found, nearest[found]], 1)


def inliers(
    a: Points, b: Points, kind: Kind = "affine", residual: float = 20.0, iterations: int = 1000, seed: int = 0
) -> tuple[Bool[np.ndarray, " m"], Transformation | None]:
    """The matched points `a` -> `b` (x, y in pixels) that agree with the best transformation, and that transformation.

    A match agrees if the transformation maps its point in `a` to within `residual` of its point in `b`, and the inverse
    maps the point in `b` to within `residual` of the point in `a`. With the distance in `b` alone, a transformation
    that shrinks everything to a spot would have many inliers (symmetric transfer, Hartley and Zisserman, section
    4.2.2). Samples of three matches give affine candidates; those that mirror, zoom more than `ZOOM` or squeeze more
    than `SQUEEZE` are dropped. The best candidates are fitted to their inliers by least squares as long as the number
    of inliers grows (locally optimised RANSAC, Chum et al., 2003). A homography is found in the same way, because three
    correct matches are drawn more often than four.

    Args:
        a, b: matched points.
        kind: the transformation that is fitted at the end.
        residual: largest distance of an inlier, in pixels.
        iterations: largest number of samples; all samples if there are fewer. Fewer are drawn if many matches agree.
        seed: seed of the samples: equal arguments give equal results.

    Returns:
        (m,) inliers and the (3, 3) matrix for homogeneous points. The matrix is None, without inliers, for too few
        matches, matches at one point or on one line, or if no plausible transformation has enough inliers.
    """
    nothing = np.zeros(len(a), np.bool_)
    if len(a) < MINIMUM[kind]:
        return nothing, None
    # Centred and in units of the residual: well conditioned, and inliers are closer than 1.
    middle_a, middle_b = a.mean(0, dtype=np.float64), b.mean(0, dtype=np.float64)
    x, y = _homogeneous((a - middle_a) / residual), _homogeneous((b - middle_b) / residual)
    candidates, counts = _candidates(x, y, samples(len(a), iterations, seed))
    best, found = nothing, None
    for candidate in np.argsort(-counts, kind="stable")[:REFINED]:
        agree, fitted = _refined(candidates[candidate], x, y, kind)
        if agree.sum() > max(best.sum(), MINIMUM[kind] - 1):
            best, found = agree, fitted
    if found is None:
        return nothing, None
    return best, _similarity(residual, middle_b) @ found @ _similarity(1 / residual, -middle_a / residual)


def samples(matches: int, limit: int, seed: int) -> Int[np.ndarray, "k 3"]:
    """All samples of three matches, or `limit` random ones (a few contain a match twice and are useless)."""
    if math.comb(matches, SAMPLE) <= limit:
        return np.array(list(itertools.combinations(range(matches), SAMPLE)), np.int64)
    return np.random.default_rng(seed).integers(0, matches, (limit, SAMPLE))


def _candidates(
    a: Homogeneous, b: Homogeneous, rows: Int[np.ndarray, "s 3"]
) -> tuple[Transformations, Int[np.ndarray, " k"]]:
    """The plausible transformations of enough samples, and the number of inliers of each."""
    candidates, counts = np.empty((0, 3, 3)), np.empty(0, np.int64)
    random = math.comb(len(a), SAMPLE) > len(rows)
    for start in range(0, len(rows), SAMPLES_AT_ONCE):
        part = rows[start : start + SAMPLES_AT_ONCE]
        more = affine_candidates(a[part], b[part])
        candidates, counts = np.concatenate([candidates, more]), np.concatenate([counts, support(more, a, b)])
        right = (counts.max(initial=0) / len(a)) ** SAMPLE
        if random and (1 - right) ** (start + len(part)) <= 1 - CONFIDENCE:
            break
    return candidates, counts


def affine_candidates(a: Float[np.ndarray, "s 3 3"], b: Float[np.ndarray, "s 3 3"]) -> Transformations:
    """The plausible affine transformations of samples, whose rows are homogeneous points."""
    inverse = _adjugates(a)
    # Twice the triangle's area, with a sign for its orientation.
    area_a, area_b = (a[:, 0] * inverse[:, 0]).sum(1), (b[:, 0] * _cross(b[:, 1], b[:, 2])).sum(1)
    kept = area_a * area_b > 1e-6
    found = b[kept].transpose(0, 2, 1) @ inverse[kept] / area_a[kept, None, None]
    return found[plausible(found, a[kept, :1])]


def plausible(transformations: Transformations, points: Float[np.ndarray, "k n 3"]) -> Bool[np.ndarray, " k"]:
    """Whether each transformation preserves orientation, size and shape around its homogeneous points."""
    images = points @ transformations.transpose(0, 2, 1)
    depth = images[..., 2, None, None]
    before = depth > 1e-3
    depth = np.where(before, depth, 1.0)
    # The derivative of (x / w, y / w).
    local = (
        transformations[:, None, :2, :2] - images[..., :2, None] / depth * transformations[:, None, 2:, :2]
    ) / depth
    # With singular values s and t: s t, and s^2 + t^2 = (s / t + t / s) s t.
    product = local[..., 0, 0] * local[..., 1, 1] - local[..., 0, 1] * local[..., 1, 0]
    shape = np.square(local).sum((-2, -1)) <= (SQUEEZE + 1 / SQUEEZE) * product
    size = (product >= ZOOM**-2) & (product <= ZOOM**2)
    return (before[..., 0, 0] & shape & size).all(1)


def support(transformations: Transformations, a: Homogeneous, b: Homogeneous) -> Int[np.ndarray, " k"]:
    """The number of matches that agree with each transformation."""
    size = max(1, RESIDUALS_AT_ONCE // len(a))
    parts = [agreeing(transformations[i : i + size], a, b).sum(1) for i in range(0, len(transformations), size)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def agreeing(transformations: Transformations, a: Homogeneous, b: Homogeneous) -> Bool[np.ndarray, "k m"]:
    """Whether each match is within 1 of each transformation, in both directions."""
    # The adjugate is the inverse times the determinant, which is above 0.
    return _near(transformations, a, b) & _near(_adjugates(transformations.transpose(0, 2, 1)), b, a)


def _near(transformations: Transformations, a: Homogeneous, b: Homogeneous) -> Bool[np.ndarray, "k m"]:
    x, y, depth = (transformations.astype(np.float32) @ a.T.astype(np.float32)).transpose(1, 0, 2)
    goal = b.astype(np.float32)
    # Not divided by the depth, which may be 0.
    x -= goal[:, 0] * depth
    y -= goal[:, 1] * depth
    return (depth > 0) & (x * x + y * y <= depth * depth)


def _refined(
    transformation: Transformation, a: Homogeneous, b: Homogeneous, kind: Kind
) -> tuple[Bool[np.ndarray, " m"], Transformation]:
    """Inliers and a transformation fitted to them, repeated as long as the number of inliers grows."""
    agree = agreeing(transformation[None], a, b)[0]
    for _ in range(ROUNDS):
        if agree.sum() < MINIMUM[kind]:
            break
        fitted = _least_squares(a[agree], b[agree], kind)
        if not plausible(fitted[None], a[None, agree])[0]:
            break
        more = agreeing(fitted[None], a, b)[0]
        if more.sum() <= agree.sum():
            break
        agree, transformation = more, fitted
    return agree, transformation


def _least_squares(a: Homogeneous, b: Homogeneous, kind: Kind) -> Transformation:
    """Least squares of the distances in b (affine), or of the algebraic error (homography: direct linear transform)."""
    if kind == "affine":
        return np.vstack([np.linalg.lstsq(a, b[:, :2], rcond=None)[0].T, [0.0, 0.0, 1.0]])
    zero = np.zeros_like(a)
    rows = np.concatenate([np.hstack([a, zero, -b[:, :1] * a]), np.hstack([zero, a, -b[:, 1:2] * a])])
    found = np.linalg.eigh(rows.T @ rows)[1][:, 0].reshape(3, 3)
    # Points are in front of the camera, at a depth of about 1.
    return found / (a @ found[2]).mean()


def _adjugates(columns: Float[np.ndarray, "k 3 3"]) -> Float[np.ndarray, "k 3 3"]:
    """The inverse times the determinant, of matrices given by their columns."""
    p, q, r = columns[:, 0], columns[:, 1], columns[:, 2]
    return np.stack([_cross(q, r), _cross(r, p), _cross(p, q)], 1)


def _cross(p: Float[np.ndarray, "k 3"], q: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "k 3"]:
    """Like `np.cross`, which takes four times as long for few rows, the usual case."""
    return p[:, [1, 2, 0]] * q[:, [2, 0, 1]] - p[:, [2, 0, 1]] * q[:, [1, 2, 0]]


def _homogeneous(points: Points) -> Homogeneous:
    return np.hstack([points, np.ones((len(points), 1))])


def _similarity(scale: float, shift: Float[np.ndarray, " 2"]) -> Transformation:
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])

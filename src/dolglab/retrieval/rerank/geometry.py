"""Which matches between two images one transformation explains: RANSAC, with the residual in both images."""

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
# How much larger or smaller, and how much more squeezed, one view may be than the other. Beyond it local features no
# longer match, while samples of wrong matches mostly ask for more.
ZOOM, SQUEEZE = 5.0, 4.0
# Random samples are looked at in parts, until one of them was so surely right (Fischler and Bolles, 1981).
SAMPLES_AT_ONCE, CONFIDENCE = 200, 0.9999
# So many of the best samples are refined, in so many rounds at most.
REFINED, ROUNDS = 3, 10
# Descriptors compared at a time, whose cosines fit the cache; and residuals computed at a time.
ROWS_AT_ONCE, RESIDUALS_AT_ONCE = 512, 262_144

Points = Float[np.ndarray, "m 2"]
Homogeneous = Float[np.ndarray, "m 3"]
Transformation = Float[np.ndarray, "3 3"]
Transformations = Float[np.ndarray, "k 3 3"]


def mutual_matches(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], ratio: float = 1.0, min_cosine: float = -1.0
) -> Int[np.ndarray, "k 2"]:
    """Rows of `a` and `b` that are each other's nearest, (k, 2), in the order of `a`.

    Args:
        a, b: L2-normalised descriptors of any precision; equally near ones count in their order.
        ratio: of the distances to the nearest and the second nearest of `b`, at most so much (Lowe, IJCV 2004); 1 asks
            for nothing.
        min_cosine: least cosine of a match.

    >>> mutual_matches(np.eye(3, 2), np.array([[0.0, 1.0], [1.0, 0.0]])).tolist()
    [[0, 1], [1, 0]]
    """
    if not len(a) or not len(b):
        return np.empty((0, 2), np.int64)
    # A search is imported without it.
    import cv2

    a, b = np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b, np.float32)
    nearest = np.empty(len(a), np.int64)
    best, second = np.empty((2, len(a)), np.float32)
    best_of_others = np.full(len(b), -np.inf, np.float32)
    for start in range(0, len(a), ROWS_AT_ONCE):
        # NumPy's threads wait busily, and on a machine with other work take ten times as long for so small a product.
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
    # Values, and not positions, tell whether it is mutual: positions of the columns' maxima take ten times as long.
    kept = (best == best_of_others[nearest]) & (best >= min_cosine)
    if ratio < 1 and len(b) > 1:
        # The squared distance of two unit vectors is 2 - 2 cos.
        kept &= np.maximum(1 - best, 0) <= ratio**2 * np.maximum(1 - second, 0)
    found = np.flatnonzero(kept)
    # Of copies in `a`, the first.
    found = np.sort(found[np.unique(nearest[found], return_index=True)[1]])
    return np.stack([found, nearest[found]], 1)


def inliers(
    a: Points, b: Points, kind: Kind = "affine", residual: float = 20.0, iterations: int = 1000, seed: int = 0
) -> tuple[Bool[np.ndarray, " m"], Transformation | None]:
    """Which matched points `a` -> `b` (x, y in pixels) agree with the best transformation, and that transformation.

    A match agrees when the transformation brings its point in `a` to within `residual` of that in `b`, and the inverse
    its point in `b` to within `residual` of that in `a`: by the distance in `b` alone, a transformation that shrinks
    everything to a spot has much support (symmetric transfer, Hartley and Zisserman, section 4.2.2). Samples of three
    matches give affine candidates; those that mirror, zoom more than `ZOOM` or squeeze more than `SQUEEZE` are dropped.
    The best are fitted to their inliers by least squares as long as these become more (locally optimised RANSAC, Chum
    et al., 2003); so is a homography, as three right matches are found more often than four.

    Args:
        a, b: matched points.
        kind: what is fitted in the end.
        residual: in pixels.
        iterations: samples drawn at most; every sample there is, where there are no more. Fewer where many agree.
        seed: of the samples: the same arguments always give the same.

    Returns:
        (m,) and (3, 3), of homogeneous points. None, with no inlier, for fewer matches than determine a
        transformation, all at one point or on one line, or without a plausible transformation that so many agree with.
    """
    nothing = np.zeros(len(a), np.bool_)
    if len(a) < MINIMUM[kind]:
        return nothing, None
    # About the middle, in units of the residual: well conditioned, and what agrees is nearer than 1.
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
    """All samples of three matches, or `limit` random ones (a few have a match twice, and determine nothing)."""
    if math.comb(matches, SAMPLE) <= limit:
        return np.array(list(itertools.combinations(range(matches), SAMPLE)), np.int64)
    return np.random.default_rng(seed).integers(0, matches, (limit, SAMPLE))


def _candidates(
    a: Homogeneous, b: Homogeneous, rows: Int[np.ndarray, "s 3"]
) -> tuple[Transformations, Int[np.ndarray, " k"]]:
    """The plausible transformations of samples, as many as it takes, and how many matches agree with each."""
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
    """The plausible ones of the affine transformations of samples, whose rows are homogeneous points."""
    inverse = _adjugates(a)
    # Twice the triangle's area, with a sign for the side it is seen from.
    area_a, area_b = (a[:, 0] * inverse[:, 0]).sum(1), (b[:, 0] * _cross(b[:, 1], b[:, 2])).sum(1)
    kept = area_a * area_b > 1e-6
    found = b[kept].transpose(0, 2, 1) @ inverse[kept] / area_a[kept, None, None]
    return found[plausible(found, a[kept, :1])]


def plausible(transformations: Transformations, points: Float[np.ndarray, "k n 3"]) -> Bool[np.ndarray, " k"]:
    """Whether each keeps the side, the size and the shape of what lies about its homogeneous points."""
    images = points @ transformations.transpose(0, 2, 1)
    depth = images[..., 2, None, None]
    before = depth > 1e-3
    depth = np.where(before, depth, 1.0)
    # The derivative of (x / w, y / w).
    local = (
        transformations[:, None, :2, :2] - images[..., :2, None] / depth * transformations[:, None, 2:, :2]
    ) / depth
    # Of its singular values s and t: s t, and s^2 + t^2, which is (s / t + t / s) s t.
    product = local[..., 0, 0] * local[..., 1, 1] - local[..., 0, 1] * local[..., 1, 0]
    shape = np.square(local).sum((-2, -1)) <= (SQUEEZE + 1 / SQUEEZE) * product
    size = (product >= ZOOM**-2) & (product <= ZOOM**2)
    return (before[..., 0, 0] & shape & size).all(1)


def support(transformations: Transformations, a: Homogeneous, b: Homogeneous) -> Int[np.ndarray, " k"]:
    """How many matches agree with each transformation."""
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
    """What agrees, and a transformation fitted to it, again and again as long as more does."""
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
    # Points lie before the camera, at a depth of about 1.
    return found / (a @ found[2]).mean()


def _adjugates(columns: Float[np.ndarray, "k 3 3"]) -> Float[np.ndarray, "k 3 3"]:
    """Of matrices given by their columns: the inverse times the determinant."""
    p, q, r = columns[:, 0], columns[:, 1], columns[:, 2]
    return np.stack([_cross(q, r), _cross(r, p), _cross(p, q)], 1)


def _cross(p: Float[np.ndarray, "k 3"], q: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "k 3"]:
    """As `np.cross`, which takes four times as long for the few rows that there mostly are."""
    return p[:, [1, 2, 0]] * q[:, [2, 0, 1]] - p[:, [2, 0, 1]] * q[:, [1, 2, 0]]


def _homogeneous(points: Points) -> Homogeneous:
    return np.hstack([points, np.ones((len(points), 1))])


def _similarity(scale: float, shift: Float[np.ndarray, " 2"]) -> Transformation:
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])

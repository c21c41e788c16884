"""Which matches between two images one transformation explains."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

Kind = Literal["affine", "homography"]
# Matches that determine a transformation, by kind.
MINIMUM: dict[Kind, int] = {"affine": 3, "homography": 4}
# How much larger, smaller or more squeezed one view may be than the other; beyond it, points have fallen together.
EXTREME = 10.0
CONFIDENCE = 0.999


def inliers(
    a: Float[np.ndarray, "n 2"],
    b: Float[np.ndarray, "n 2"],
    kind: Kind = "affine",
    residual: float = 20.0,
    iterations: int = 1000,
) -> tuple[Bool[np.ndarray, " n"], NDArray[np.float64] | None]:
    """Which matched points `a` -> `b` (x, y in pixels) agree with the best transformation, and that transformation.

    OpenCV's USAC, with its seed: the same points always give the same. The transformation is (2, 3) affine or (3, 3);
    None, with no inlier, for fewer matches than determine one, and for one that mirrors, or stretches or squeezes more
    than tenfold, which no two photos of one building ask for.

    Args:
        a, b: matched points.
        kind: what is fitted.
        residual: distance in `b`, in pixels, up to which a match agrees.
        iterations: samples tried at most.
    """
    import cv2

    nothing = np.zeros(len(a), np.bool_)
    if len(a) < MINIMUM[kind]:
        return nothing, None
    fit: Any = cv2.estimateAffine2D if kind == "affine" else cv2.findHomography
    try:
        found, mask = fit(
            a.astype(np.float64),
            b.astype(np.float64),
            method=cv2.USAC_FAST,
            ransacReprojThreshold=residual,
            maxIters=iterations,
            confidence=CONFIDENCE,
        )
    except cv2.error:
        # Points on one line, or all the same, leave OpenCV without a solution.
        return nothing, None
    if found is None or mask is None:
        return nothing, None
    agree = np.asarray(mask).ravel() > 0
    return (agree, found) if plausible(found, a[agree]) else (nothing, None)


def plausible(transformation: NDArray[np.float64], points: Float[np.ndarray, "n 2"]) -> bool:
    """Whether a transformation neither mirrors nor stretches beyond reason around the middle of its points."""
    if not len(points) or not np.isfinite(transformation).all():
        return False
    linear = _linear(transformation, points.mean(0))
    stretch = np.linalg.svd(linear, compute_uv=False)
    return bool(np.linalg.det(linear) > 0 and stretch[0] <= EXTREME and stretch[-1] >= 1 / EXTREME)


def _linear(transformation: NDArray[np.float64], at: NDArray[np.floating]) -> NDArray[np.float64]:
    """The (2, 2) derivative of a transformation at a point."""
    if transformation.shape == (2, 3):
        return transformation[:, :2]
    x, y, w = transformation @ np.append(at, 1.0)
    if abs(w) < np.finfo(np.float64).tiny:
        return np.zeros((2, 2))
    return (transformation[:2, :2] * w - np.outer([x, y], transformation[2, :2])) / w**2

"""RootSIFT, which needs no training (Lowe, IJCV 2004; Arandjelovic and Zisserman, CVPR 2012)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from src.contracts import InputError, LocalFeatures

DIM = 128


class RootSIFT:
    """SIFT's keypoints by difference of Gaussians, described by the square roots of L1-normalised SIFT.

    Args:
        model: nothing; a network's local features are made from one.
        max_features: how many are kept of an image, the strongest.
        contrast: least contrast of a keypoint, as OpenCV counts it.

    Raises:
        InputError: settings out of range.
    """

    model = None

    def __init__(self, model: object = None, max_features: int = 2000, contrast: float = 0.04) -> None:
        if max_features < 1 or contrast < 0:
            raise InputError(
                f"features.max_features is at least 1, features.contrast at least 0, not {max_features} and {contrast}"
            )
        self.max_features = max_features
        self.contrast = float(contrast)

    def __call__(self, images: Sequence[UInt8[Tensor, "h w 3"]]) -> list[LocalFeatures]:
        """RGB images to their local features; an image without a keypoint has none."""
        detector = cv2.SIFT_create(contrastThreshold=self.contrast)  # pyright: ignore[reportAttributeAccessIssue]
        return [self._of(detector, image.cpu().numpy()) for image in images]

    def describe(self) -> dict[str, object]:
        """What a result card says of it."""
        return {"features": "rootsift", "max_features": self.max_features, "contrast": self.contrast}

    def _of(self, detector: cv2.Feature2D, image: UInt8[np.ndarray, "h w 3"]) -> LocalFeatures:
        points, rows = detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        strengths = np.array([point.response for point in points], np.float32)
        kept = np.argsort(-strengths, kind="stable")[: self.max_features].tolist()
        shape = (int(image.shape[0]), int(image.shape[1]))
        return LocalFeatures(
            keypoints=np.array([points[i].pt for i in kept], np.float32).reshape(-1, 2),
            sizes=np.array([points[i].size for i in kept], np.float32),
            scores=strengths[kept],
            descriptors=root(rows[kept] if kept else np.empty((0, DIM), np.float32)).astype(np.float16),
            shape=shape,
        )


def root(rows: Float[np.ndarray, "n d"]) -> NDArray[np.float32]:
    """L1-normalised and then square-rooted histograms, which are L2-normalised by that; zeros stay zeros."""
    sums = rows.sum(1, keepdims=True)
    return np.sqrt(rows / np.maximum(sums, np.finfo(np.float32).tiny)).astype(np.float32)

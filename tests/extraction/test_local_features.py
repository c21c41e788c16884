"""Local features of a network and of OpenCV, against plain loops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from src.contracts import InputError, LocalMaps
from src.extraction.local_features import NetworkLocalFeatures
from src.extraction.rootsift import RootSIFT, root
from src.models.dolg import GlobalDescriptor


class Grid(GlobalDescriptor):
    """A network whose local map is the image in cells of 8 pixels: scores are means, features colours."""

    class Plain(nn.Module):
        def normalise(self, images: torch.Tensor) -> torch.Tensor:
            return images / 255

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.backbone = self.Plain()

    def local_maps(self, images: torch.Tensor) -> LocalMaps:
        means = nn.functional.avg_pool2d(images, 8)
        return LocalMaps(nn.functional.normalize(means + 0.1, dim=1), means.mean(1, keepdim=True))


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return torch.from_numpy(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def test_cells_of_all_scales_by_strength_without_overlaps() -> None:
    image = picture(64, 96)
    scales, most = (1.0, 2.0), 25
    (found,) = NetworkLocalFeatures(Grid(), scales, max_features=most, overlap=0.2)([image])
    pixels = image.permute(2, 0, 1)[None].float() / 255
    cells = []
    for scale in scales:
        x = pixels if scale == 1 else nn.functional.interpolate(pixels, scale_factor=scale, mode="bilinear")
        maps = Grid().local_maps(x)
        side = 8 / scale
        for row in range(maps.scores.shape[2]):
            for column in range(maps.scores.shape[3]):
                place = ((column + 0.5) * side - 0.5, (row + 0.5) * side - 0.5)
                cells.append((float(maps.scores[0, 0, row, column]), place, side, maps.features[0, :, row, column]))
    kept: list = []
    for cell in sorted(cells, key=lambda c: -c[0]):
        if len(kept) < most and all(iou(cell, other) <= 0.2 for other in kept):
            kept.append(cell)
    np.testing.assert_allclose(found.scores, [cell[0] for cell in kept], rtol=1e-5)
    np.testing.assert_allclose(found.keypoints, [cell[1] for cell in kept], atol=1e-4)
    np.testing.assert_allclose(found.sizes, [cell[2] for cell in kept], rtol=1e-6)
    np.testing.assert_allclose(found.descriptors, np.stack([cell[3] for cell in kept]), atol=2e-3)
    assert found.shape == (64, 96)


def iou(a: tuple, b: tuple) -> float:
    sides = [min(p + a[2] / 2, q + b[2] / 2) - max(p - a[2] / 2, q - b[2] / 2) for p, q in zip(a[1], b[1], strict=True)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    return shared / (a[2] ** 2 + b[2] ** 2 - shared)


def test_images_of_one_shape_together_are_as_alone() -> None:
    images = [picture(64, 96, seed) for seed in range(3)]
    extractor = NetworkLocalFeatures(Grid(), (0.7071, 1.0), max_features=10)
    for alone, together in zip([extractor([image])[0] for image in images], extractor(images), strict=True):
        np.testing.assert_array_equal(alone.keypoints, together.keypoints)
        np.testing.assert_array_equal(alone.descriptors, together.descriptors)


def test_nothing_above_the_threshold_is_no_feature() -> None:
    (found,) = NetworkLocalFeatures(Grid(), (1.0,), threshold=2.0)([picture(32, 32)])
    assert len(found) == 0
    assert found.descriptors.shape == (0, 3)
    assert found.keypoints.shape == (0, 2)


def test_refuses_no_network_and_no_features() -> None:
    with pytest.raises(InputError, match=r"features=network needs one"):
        NetworkLocalFeatures(None)
    with pytest.raises(InputError, match=r"max_features is at least 1"):
        NetworkLocalFeatures(Grid(), max_features=0)
    with pytest.raises(InputError, match=r"features\.contrast at least 0"):
        RootSIFT(contrast=-1.0)


def test_rootsift_is_opencvs_sift_under_a_root_strongest_first() -> None:
    image = picture(256, 320)
    (found,) = RootSIFT(max_features=20)([image])
    points, rows = cv2.SIFT_create().detectAndCompute(cv2.cvtColor(image.numpy(), cv2.COLOR_RGB2GRAY), None)
    strongest = sorted(range(len(points)), key=lambda i: -points[i].response)[:20]
    assert len(points) > 20
    np.testing.assert_allclose(found.keypoints, [points[i].pt for i in strongest])
    np.testing.assert_allclose(found.scores, [points[i].response for i in strongest])
    expected = np.stack([np.sqrt(rows[i] / rows[i].sum()) for i in strongest])
    np.testing.assert_allclose(found.descriptors, expected, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors.astype(np.float32), axis=1), 1, atol=1e-2)


def test_a_blank_image_has_no_rootsift() -> None:
    (found,) = RootSIFT()([torch.full((64, 64, 3), 128, dtype=torch.uint8)])
    assert len(found) == 0
    assert found.descriptors.shape == (0, 128)
    np.testing.assert_array_equal(root(np.zeros((1, 4), np.float32)), np.zeros((1, 4)))

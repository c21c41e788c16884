"""Local features of a network and of OpenCV, against plain loops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from dolglab.contracts import LocalMaps
from dolglab.errors import UserError
from dolglab.extraction.local_features import NetworkLocalFeatures, resize_to_cells
from dolglab.extraction.rootsift import RootSIFT, root_normalise
from dolglab.models.dolg import GlobalDescriptor


class Grid(GlobalDescriptor):
    """A network whose local map is the image in cells of 8 pixels: scores are means, features colours."""

    class Plain(nn.Module):
        reductions = (8, 16)

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


def test_cells_of_all_scales_are_sorted_by_strength_without_overlaps() -> None:
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


def test_a_batch_of_one_shape_equals_single_images() -> None:
    images = [picture(64, 96, seed) for seed in range(3)]
    extractor = NetworkLocalFeatures(Grid(), (0.7071, 1.0), max_features=10)
    for alone, together in zip([extractor([image])[0] for image in images], extractor(images), strict=True):
        np.testing.assert_array_equal(alone.keypoints, together.keypoints)
        np.testing.assert_array_equal(alone.descriptors, together.descriptors)


def test_no_score_above_the_threshold_gives_no_features() -> None:
    (found,) = NetworkLocalFeatures(Grid(), (1.0,), threshold=2.0)([picture(32, 32)])
    assert len(found) == 0
    assert found.descriptors.shape == (0, 3)
    assert found.keypoints.shape == (0, 2)


def test_a_missing_network_and_missing_features_are_refused() -> None:
    with pytest.raises(UserError, match="features=network"):
        NetworkLocalFeatures(None)
    with pytest.raises(UserError, match=r"features\.max_features"):
        NetworkLocalFeatures(Grid(), max_features=0)
    with pytest.raises(UserError, match=r"features\.contrast"):
        RootSIFT(contrast=-1.0)


@pytest.mark.parametrize("shape", [(64, 96), (70, 101), (3, 200), (1, 1)])
@pytest.mark.parametrize("scale", [0.25, 1.0, 1.4142])
def test_cells_cover_the_image_from_edge_to_edge(shape: tuple[int, int], scale: float) -> None:
    (found,) = NetworkLocalFeatures(Grid(), (scale,), max_features=10_000, threshold=-1.0, overlap=1.0)(
        [torch.full((*shape, 3), 9, dtype=torch.uint8)]
    )
    for axis, side in ((0, shape[1]), (1, shape[0])):
        places = np.unique(found.keypoints[:, axis].round(3))
        assert len(places) == max(1, round(side * scale / 8))
        # The first cell begins where the image does, half a pixel before its first pixel's middle.
        cell = side / len(places)
        np.testing.assert_allclose(places, -0.5 + cell * (np.arange(len(places)) + 0.5), atol=1e-3)


def test_a_size_of_whole_cells_is_kept_and_others_are_resized_like_opencv() -> None:
    pixels = picture(64, 96).permute(2, 0, 1)[None].float()
    assert resize_to_cells(pixels, 1.0, 16) is pixels
    resized = resize_to_cells(pixels, 0.7071, 16)
    assert resized.shape == (1, 3, 48, 64)
    reference = cv2.resize(pixels[0].permute(1, 2, 0).numpy(), (64, 48), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resized[0].permute(1, 2, 0), reference, atol=1e-2)


def texture(height: int, width: int) -> torch.Tensor:
    rng = np.random.default_rng(5)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3)).astype(np.float32), (0, 0), 2.5)
    return torch.from_numpy(np.clip(6 * (noise - 127) + 127, 0, 255).astype(np.uint8))


def test_rootsift_is_the_root_of_opencvs_sift_strongest_first() -> None:
    image = texture(128, 160)
    (found,) = RootSIFT(upright=False)([image])
    points, rows = cv2.SIFT_create().detectAndCompute(cv2.cvtColor(image.numpy(), cv2.COLOR_RGB2GRAY), None)
    strongest = sorted(range(len(points)), key=lambda i: (-points[i].response, points[i].pt, points[i].angle))
    assert len(points) > 50
    np.testing.assert_allclose(found.keypoints, [points[i].pt for i in strongest])
    np.testing.assert_allclose(found.sizes, [points[i].size for i in strongest])
    np.testing.assert_allclose(found.scores, [points[i].response for i in strongest])
    expected = np.stack([np.sqrt(rows[i] / rows[i].sum()) for i in strongest])
    np.testing.assert_allclose(found.descriptors, expected, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors.astype(np.float32), axis=1), 1, atol=1e-2)
    (few,) = RootSIFT(max_features=20, upright=False)([image])
    np.testing.assert_array_equal(few.keypoints, found.keypoints[:20])


def test_upright_rootsift_has_every_keypoint_once_without_rotation() -> None:
    image = texture(128, 160)
    (found,) = RootSIFT(max_features=1000)([image])
    grey = cv2.cvtColor(image.numpy(), cv2.COLOR_RGB2GRAY)
    detector = cv2.SIFT_create()
    points = detector.detect(grey, None)
    for point in points:
        point.angle = 0.0
    points, rows = detector.compute(grey, points)
    expected = {(*p.pt, p.size): np.sqrt(row / row.sum()) for p, row in zip(points, rows, strict=True)}
    assert len(found) == len(expected) < len(points)
    places = zip(found.keypoints.tolist(), found.sizes.tolist(), strict=True)
    np.testing.assert_allclose(found.descriptors, [expected[x, y, size] for (x, y), size in places], atol=1e-3)
    assert (np.diff(found.scores) <= 0).all()


def test_rootsift_does_not_depend_on_the_number_of_threads() -> None:
    image, before = texture(200, 300), cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        (alone,) = RootSIFT()([image])
        cv2.setNumThreads(4)
        (together,) = RootSIFT()([image])
    finally:
        cv2.setNumThreads(before)
    assert len(alone) > 100
    np.testing.assert_array_equal(alone.keypoints, together.keypoints)
    np.testing.assert_array_equal(alone.descriptors, together.descriptors)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (5, 5)])
def test_images_too_small_for_rootsift_have_none(shape: tuple[int, int]) -> None:
    (found,) = RootSIFT()([torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)])
    assert len(found) == 0
    assert found.shape == shape


def test_a_blank_image_has_no_rootsift() -> None:
    (found,) = RootSIFT()([torch.full((64, 64, 3), 128, dtype=torch.uint8)])
    assert len(found) == 0
    assert found.descriptors.shape == (0, 128)
    np.testing.assert_array_equal(root_normalise(np.zeros((1, 4), np.float32)), np.zeros((1, 4)))

"""XFeat compared with values of the released code, torch's samplers, and plain loops."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dolglab.errors import UserError
from dolglab.extraction import xfeat
from dolglab.extraction.xfeat import (
    CELL,
    GRAPH,
    INSTALL,
    WINDOW,
    XFeat,
    bicubic_weights,
    bilinear_weights,
    installed_weights,
    keypoint_probabilities,
    sample,
    strongest_points,
)
from dolglab.models.xfeat import read_xfeat

PHOTO = "rparis6k-mini/jpg/paris_louvre_000017.jpg"


@pytest.fixture(scope="module", params=["onnx", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    _weights()
    return request.param


@pytest.fixture(scope="module")
def weights() -> Path:
    return _weights()


def _weights() -> Path:
    try:
        return installed_weights()
    except UserError as error:
        pytest.skip(str(error))


def noise(*shape: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (*(-(-side // 4) for side in shape), 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", ["native", "640"])
def test_keypoints_and_descriptors_equal_the_released_code(
    size: str, backend: str, parity: Path, shared_data: Path
) -> None:
    expected = np.load(parity / "heads" / "xfeat.npz")
    photo = Image.open(shared_data / PHOTO).convert("RGB")
    if size != "native":
        photo = photo.resize(tuple(expected[f"{size}/size_wh"].tolist()), Image.Resampling.BILINEAR)
    found = XFeat(max_features=500, backend=backend).extract(np.asarray(photo))
    distances = np.linalg.norm(found.keypoints[:, None] - expected[f"{size}/keypoints"][None], axis=2)
    nearest = distances.argmin(1)
    assert len(found) == 500
    assert (distances.min(1) < 0.5).all()
    assert len(np.unique(nearest)) == 500
    rows = found.descriptors.astype(np.float64)
    cosines = (rows / np.linalg.norm(rows, axis=1, keepdims=True) * expected[f"{size}/descriptors"][nearest]).sum(1)
    assert cosines.min() > 0.9999
    np.testing.assert_allclose(found.scores, expected[f"{size}/scores"][nearest], atol=2e-4)
    assert (np.diff(found.scores) <= 0).all()


def test_maps_equal_the_released_code(weights: Path, parity: Path, shared_data: Path) -> None:
    expected = np.load(parity / "heads" / "xfeat.npz")
    pixels = torch.from_numpy(np.array(Image.open(shared_data / PHOTO).convert("RGB"))).float()
    grey = pixels.mean(2)[None, None]
    resized = F.interpolate(grey, tuple(expected["native/network_size_hw"].tolist()), mode="bilinear")
    with torch.inference_mode():
        features, logits, reliability = read_xfeat(weights)(resized)
    np.testing.assert_allclose(features.mean((2, 3)), expected["native/feats_mean"], atol=1e-4)
    np.testing.assert_allclose(logits.mean((2, 3)), expected["native/cell_logits_mean"], atol=1e-4)
    np.testing.assert_allclose(reliability.sigmoid()[0, 0, ::4, ::4], expected["native/reliability_8th"], atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 96), (97, 131)])
def test_torch_and_onnxruntime_give_the_same(shape: tuple[int, int], weights: Path) -> None:
    a, b = (XFeat(backend=name, threshold=0.01).extract(noise(*shape)) for name in ("torch", "onnx"))
    assert len(a)
    np.testing.assert_array_equal(np.sort(a.keypoints, 0), np.sort(b.keypoints, 0))
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
    assert a.shape == b.shape == shape


def test_the_graph_contains_no_weights(weights: Path) -> None:
    assert GRAPH.stat().st_size < weights.stat().st_size / 50


@pytest.mark.parametrize(("mode", "kernel"), [("bicubic", bicubic_weights), ("bilinear", bilinear_weights)])
def test_sampling_equals_torchs_grid_sample(mode: str, kernel) -> None:
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(4, 6, 3)).astype(np.float32)
    height, width = 4 * CELL, 6 * CELL
    points = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2)
    grid = 2 * torch.from_numpy(points).float() / torch.tensor([width - 1, height - 1]) - 1
    maps = torch.from_numpy(cells).permute(2, 0, 1)[None]
    expected = F.grid_sample(maps, grid[None, None], mode=mode, align_corners=False)[0, :, 0].T
    # A position within rounding of a cell's border belongs to either cell, with the same value.
    np.testing.assert_allclose(sample(cells, points, kernel), expected, atol=2e-5)


def test_probabilities_equal_the_softmax_of_cells() -> None:
    logits = np.random.default_rng(0).normal(size=(65, 3, 4)).astype(np.float32)
    expected = F.pixel_shuffle(torch.from_numpy(logits).softmax(0)[None, :64], CELL)[0, 0]
    np.testing.assert_allclose(keypoint_probabilities(logits), expected, atol=1e-6)


def test_keypoints_are_local_maxima() -> None:
    probabilities = np.random.default_rng(0).random((24, 32)).astype(np.float32)
    probabilities[0, 0] = 2
    reach = WINDOW // 2
    expected = [
        [x, y]
        for y in range(23)
        for x in range(31)
        if (x, y) != (0, 0)
        and probabilities[y, x] > 0.9
        and probabilities[y, x]
        == probabilities[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].max()
    ]
    assert strongest_points(probabilities, 0.9).tolist() == expected


def test_keypoints_refer_to_the_original_image(weights: Path) -> None:
    image = noise(200, 300)
    whole = XFeat(threshold=0.01).extract(np.asarray(Image.fromarray(image).reduce(2)))
    half = XFeat(threshold=0.01, side=150).extract(image)
    assert half.shape == (200, 300)
    np.testing.assert_allclose(half.keypoints, 2 * whole.keypoints, atol=1e-3)


def test_the_strongest_features_are_kept(weights: Path) -> None:
    many, few = (XFeat(max_features=count, threshold=0.01).extract(noise(128, 128)) for count in (1000, 5))
    assert len(few) == 5 < len(many)
    np.testing.assert_array_equal(few.keypoints, many.keypoints[:5])


def test_smaller_images_are_enlarged_up_to_twice(weights: Path) -> None:
    image = noise(100, 150)
    double = XFeat(threshold=0.01).extract(
        np.asarray(Image.fromarray(image).resize((300, 200), Image.Resampling.BILINEAR))
    )
    for side in (300, 640):
        found = XFeat(threshold=0.01, side=side).extract(image)
        assert found.shape == (100, 150)
        assert abs(len(found) - len(double)) <= 0.1 * len(double)
        gaps = np.linalg.norm(found.keypoints[:, None] - double.keypoints[None] / 2, axis=2).min(1)
        assert np.mean(gaps < 1) > 0.8


@pytest.mark.parametrize("shape", [(31, 400), (400, 31), (1, 1), (5, 2000)])
def test_images_too_small_have_none(shape: tuple[int, int], backend: str) -> None:
    found = XFeat(backend=backend, side=640).extract(np.zeros((*shape, 3), np.uint8))
    assert (found.keypoints.shape, found.descriptors.shape, found.shape) == ((0, 2), (0, 64), shape)


def test_a_blank_image_has_none(backend: str) -> None:
    found = XFeat(backend=backend)([torch.full((100, 120, 3), 90, dtype=torch.uint8)])
    assert [len(each) for each in found] == [0]


@pytest.mark.parametrize(
    "settings", [{"max_features": 0}, {"threshold": 1.0}, {"threshold": -0.1}, {"side": 31}, {"backend": "tensorflow"}]
)
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(UserError, match=r"features\."):
        XFeat(**settings)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_missing_weights_are_reported_with_the_install_command(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xfeat, "WEIGHTS", "package:dolglab_not_there/xfeat.pt")
    with pytest.raises(UserError, match=INSTALL):
        XFeat(backend=backend)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_weights_of_another_version_are_refused(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xfeat.pt").write_bytes(b"other")
    monkeypatch.setattr(xfeat, "WEIGHTS", str(tmp_path / "xfeat.pt"))
    with pytest.raises(UserError, match=f"another version: {INSTALL}"):
        XFeat(backend=backend)


@pytest.mark.parametrize("content", [b"", b"other", partial(torch.save, {"a": torch.zeros(1)})])
def test_a_file_of_other_weights_is_refused(content, tmp_path: Path) -> None:
    path = tmp_path / "xfeat.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    with pytest.raises(UserError, match=r"xfeat\.pt (is|holds)"):
        read_xfeat(path)

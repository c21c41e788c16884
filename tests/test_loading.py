"""`dolglab.load`: the same descriptors for every type of image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import dolglab
from dolglab.errors import UserError
from dolglab.sharing.loading import LoadedModel
from training.test_checkpoints import write

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, torch.nn.Module]:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    network = write(path)
    return dolglab.load(path), network


def pattern(height: int = 48, width: int = 72) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_paths_pil_images_and_arrays_give_the_networks_descriptors(model, tmp_path: Path) -> None:
    loaded, network = model
    pixels = pattern()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels]
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (network.backbone.mean, network.backbone.std))
    with torch.no_grad():
        expected = F.normalize(network((x - mean) / std))[0].numpy()
    for image in images:
        found = loaded(image)
        assert (found.shape, found.dtype) == ((8,), np.float32)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert loaded(images).shape == (4, loaded.dim)
    assert loaded([]).shape == (0, 8)


def test_photographs_of_any_type_are_turned_upright(model, tmp_path: Path) -> None:
    loaded, _ = model
    turned = Image.fromarray(np.rot90(pattern()).copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.png", exif=exif)
    for image in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        np.testing.assert_allclose(loaded(image), loaded(pattern()), atol=1e-5)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4), np.uint8), r"\(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (7, "int"),
        ("nowhere.jpg", "nowhere.jpg"),
    ],
)
def test_objects_that_are_not_images_are_refused(model, image: object, said: str) -> None:
    loaded, _ = model
    with pytest.raises(UserError, match=said):
        loaded(image)


@pytest.mark.process
def test_importing_the_package_does_not_import_torch() -> None:
    code = "import dolglab, sys; assert callable(dolglab.load); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

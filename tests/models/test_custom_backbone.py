"""A custom backbone, declared by a package's entry point, can be used like those of timm."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dolglab
from dolglab.errors import UserError
from dolglab.extraction.extractor import Extractor, for_inference
from dolglab.extraction.local_features import NetworkLocalFeatures
from dolglab.models.backbone import FeatureBackbone
from dolglab.models.checkpoint import RUN_KEY, check_loadable, describe_run, load_model, registered_networks
from dolglab.models.dolg import DOLG
from dolglab.training.optim import parameter_groups

SOURCE = '''
import torch
from torch import nn
from dolglab.contracts import Features

class TinyBackbone(nn.Module):
    """Two convolutions with strides of 4."""

    name, licence, out_channels, reductions = "tiny", None, (6, 10), (4, 16)

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, width, 5, 4, 2), nn.Conv2d(width, 10, 5, 4, 2)

    def normalise(self, images):
        return images.float() / 255

    def forward(self, images):
        local = self.first(images).relu()
        return Features(local=local, global_=self.second(local).relu())

    def levels(self):
        return [list(self.first.parameters()), list(self.second.parameters())]
'''
CONFIG = {
    "_target_": "dolglab.models.dolg.DOLG",
    "backbone": {"_target_": "tiny_networks.TinyBackbone", "width": 6},
    "hidden": 8,
    "dim": 4,
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """An installed package with an entry point, as pip writes it."""
    site = tmp_path / "site"
    (site / "tiny-1.0.dist-info").mkdir(parents=True)
    (site / "tiny_networks.py").write_text(SOURCE)
    (site / "tiny-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    (site / "tiny-1.0.dist-info" / "entry_points.txt").write_text("[dolglab.models]\ntiny = tiny_networks\n")
    monkeypatch.syspath_prepend(site)
    registered_networks.cache_clear()
    yield import_module("tiny_networks")
    registered_networks.cache_clear()


def checkpoint(path: Path, network: DOLG, config: dict) -> Path:
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    data = {"training": "1" * 16, "validation": {}, "images": 9}
    torch.save({"state_dict": state, RUN_KEY: describe_run({"model": config}, ["a", "b"], data)}, path)
    return path


def test_a_custom_backbone_is_trained_stored_used_and_exported(package: ModuleType, tmp_path: Path) -> None:
    backbone = package.TinyBackbone()
    assert isinstance(backbone, FeatureBackbone)
    network = DOLG(backbone, hidden=8, dim=4)
    check_loadable(network, CONFIG)
    groups = parameter_groups(backbone.levels(), list(network.fc.parameters()), layer_decay=0.5)
    assert len({group["lr_scale"] for group in groups}) == 3
    network(backbone.normalise(torch.full((2, 3, 32, 48), 90))).sum().backward()
    assert backbone.first.weight.grad is not None

    loaded, config = load_model(checkpoint(tmp_path / "a.ckpt", network, CONFIG))
    assert config["model"] == CONFIG
    image = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = F.normalize(network.eval()(backbone.normalise(image.permute(2, 0, 1)[None])))
        torch.testing.assert_close(Extractor(for_inference(loaded))([image]), expected, rtol=1e-4, atol=1e-5)
        (found,) = NetworkLocalFeatures(loaded, (1.0,), overlap=1.0)([image])
    assert len(np.unique(found.keypoints[:, 0])) == 64 // 4
    np.testing.assert_allclose(dolglab.load(tmp_path / "a.ckpt")(image.numpy()), expected[0].numpy(), atol=1e-4)


def test_an_unregistered_backbone_is_refused_before_training(package: ModuleType) -> None:
    network = DOLG(package.TinyBackbone(), hidden=8, dim=4)
    with pytest.raises(UserError, match=r"elsewhere\.OtherBackbone"):
        check_loadable(network, {**CONFIG, "backbone": {"_target_": "elsewhere.OtherBackbone"}})

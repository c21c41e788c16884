"""Networks that are loaded by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate

import dolglab
from dolglab.errors import UserError
from dolglab.extraction.describer import Session
from dolglab.extraction.descriptor_store import fingerprint
from dolglab.models.backbone import Backbone, without_weights
from dolglab.models.checkpoint import load_model
from dolglab.models.dolg import GlobalDescriptor
from dolglab.sharing.loading import load_extractor
from dolglab.sharing.networks import PRETRAINED, load_network
from dolglab.sharing.onnx_export import write_onnx
from end_to_end.runs import config


def test_the_packaged_network_equals_the_configuration() -> None:
    cfg = config("evaluate", "output_dir=out", "model=imagenet_gem", "backbone=efficientnet_lite0")
    assert fingerprint(instantiate(cfg.model)) == fingerprint(load_network("efficientnet_lite0"))


def test_dinov2_equals_the_configuration() -> None:
    """Its weights are not available here, so the request for them is checked."""
    cfg = config("evaluate", "output_dir=out", "model=imagenet_gem", "backbone=vit_small_patch14_dinov2")
    backbone, _ = PRETRAINED["dinov2"]
    asked = {"name": cfg.backbone.name, "depths": tuple(cfg.backbone.depths), "options": dict(cfg.backbone.options)}
    assert backbone == asked


@pytest.mark.parametrize(("name", "side"), [("dinov2", 518), ("efficientnet_lite0", 1024)])
def test_a_named_network_has_a_side(name: str, side: int) -> None:
    assert GlobalDescriptor(Backbone(**without_weights(PRETRAINED[name][0])), dim=None).side == side


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An exported folder of a network whose run shrank its images to 48 pixels."""
    return with_side(Path(__file__).parents[1] / "fixtures" / "version_0_1" / "model", tmp_path / "model", 48)


def with_side(source: Path, folder: Path, side: object) -> Path:
    shutil.copytree(source, folder)
    about = json.loads((folder / "config.json").read_text())
    about["config"]["data"]["max_side"] = side
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def test_a_trained_network_uses_its_validation_side(model: Path, tmp_path: Path) -> None:
    network, _ = load_model(model)
    assert network.side == load_extractor(str(model)).identity["max_side"] == 48
    assert load_extractor(str(model), max_side=80).identity["max_side"] == 80
    write_onnx(network, model / "model.onnx")
    assert Session(model / "model.onnx").side == 48
    assert load_extractor(str(model), backend="onnx").identity == load_extractor(str(model)).identity
    image = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    np.testing.assert_array_equal(dolglab.load(model)(image), dolglab.load(model, max_side=48)(image))
    assert load_model(with_side(model, tmp_path / "other", None))[0].side == 1024
    with pytest.raises(UserError, match=r"max_side.*0"):
        load_model(with_side(model, tmp_path / "wrong", 0))

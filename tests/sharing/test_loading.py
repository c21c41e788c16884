"""The networks that a library takes by name."""

from __future__ import annotations

from hydra.utils import instantiate

from dolglab.extraction.descriptor_store import fingerprint
from dolglab.sharing.networks import PRETRAINED, load_network
from end_to_end.runs import config


def test_the_packaged_network_is_the_configurations() -> None:
    cfg = config("evaluate", "output_dir=out", "model=imagenet_gem", "backbone=efficientnet_lite0")
    assert fingerprint(instantiate(cfg.model)) == fingerprint(load_network("efficientnet_lite0"))


def test_dinov2_is_the_configurations() -> None:
    """Its weights cannot be had here: by what is asked for."""
    cfg = config("evaluate", "output_dir=out", "model=imagenet_gem", "backbone=vit_small_patch14_dinov2")
    backbone, _ = PRETRAINED["dinov2"]
    asked = {"name": cfg.backbone.name, "depths": tuple(cfg.backbone.depths), "options": dict(cfg.backbone.options)}
    assert backbone == asked

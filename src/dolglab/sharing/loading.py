"""Networks that describe images: for libraries, and as functions of images (`dolglab.load`)."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dolglab.contracts import Colour, Decoding
from dolglab.data.image_errors import BrokenImageError, reason
from dolglab.data.image_reading import Reading, pixels_of, shrink
from dolglab.data.photos import photo_pixels
from dolglab.errors import UserError
from dolglab.extraction.describer import (
    INSIDE,
    ONNX_FILE,
    AdaptedDescriber,
    Describer,
    OnnxDescriber,
    Session,
    TorchDescriber,
    onnx_is_faster,
)
from dolglab.models.locate import locate
from dolglab.retrieval.adapter import Adapter
from dolglab.sharing.graph_cache import FASTER, KeptGraph
from dolglab.sharing.networks import PRETRAINED, address_of, default_source, is_hub_folder, load_network, title_of

if TYPE_CHECKING:
    # Running an ONNX file needs no torch.
    from dolglab.extraction.extractor import Extractor
    from dolglab.models.dolg import DescriptorModel

Backend = Literal["auto", "torch", "onnx"]
Picture = str | Path | Image.Image | NDArray[np.uint8]

# Graphs of packaged networks; the weights are in packages of their own (see experiments/offline_backbone).
GRAPHS = {"efficientnet_lite0": Path(__file__).with_name("efficientnet_lite0.onnx")}
# Packages for exporting a network, and for running and caching the file.
EXPORT_PACKAGES = ("onnx", "onnxscript", "onnxruntime", "platformdirs")


class LoadedModel:
    """Describes images: the dot product of two descriptors, of length `dim`, is the cosine by which a search ranks.

    Arguments and errors are those of `dolglab.load`.
    """

    def __init__(
        self,
        source: str | Path,
        scales: Sequence[float] = (1.0,),
        max_side: int | None = None,
        colour: Colour = "srgb",
        decoding: Decoding = "scaled",
    ) -> None:
        self._loaded = load_extractor(str(source), scales, max_side, colour=colour, decoding=decoding)
        self.dim: int = self._loaded.identity["dim"]
        self._max_side: int = self._loaded.identity["max_side"]

    def __call__(self, images: Picture | list[Picture]) -> NDArray[np.float32]:
        """The L2-normalised descriptor of an image, (dim,), or those of a list of images, (n, dim).

        Images are paths, PIL images or RGB arrays (H, W, 3) uint8; the first two are turned upright by their EXIF data.
        Raises UserError for other types, and for images that cannot be read.
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
        raise UserError(f"an image must be a path, a PIL image or an array (height, width, 3) of uint8, not {found}")
    if not image.size:
        raise UserError(f"an image of shape {image.shape} has no pixels")
    return shrink(np.ascontiguousarray(image), max_side)


@dataclass(frozen=True)
class LoadedExtractor:
    """A network that describes photos.

    Attributes:
        describer: computes descriptors of photos.
        identity: stored in libraries, with a title: descriptors with different identities are not comparable.
        loaded: the torch network, if it was loaded.
        adapter: the adapter of its descriptors, if any.
    """

    describer: Describer
    identity: dict[str, Any]
    loaded: Extractor | None = None
    adapter: Adapter | None = None

    @property
    def reading(self) -> Reading:
        """How photos are read."""
        return Reading(colour=self.identity["colour"], decoding=self.identity["decoding"])

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """L2-normalised descriptors, (n, dim), of RGB pixels, (H, W, 3) each."""
        return self.describer(images)

    @cached_property
    def extractor(self) -> Extractor:
        """The torch network with its adapter, which can explain a cosine.

        Raises UserError if the network has changed.
        """
        from dolglab.extraction.extractor import Extractor

        if self.adapter is None:
            return self.loaded or Extractor(self.network(), self.identity["scales"])
        from dolglab.models.dolg import AdaptedDescriptor

        network = self.loaded.model if self.loaded else self.network()
        adapted = AdaptedDescriptor.of(network, self.adapter.weight, self.adapter.bias)
        return Extractor(adapted, self.identity["scales"])

    def network(self) -> DescriptorModel:
        """The network, loaded again without an adapter.

        Raises UserError if the network has changed.
        """
        from dolglab.extraction.descriptor_store import fingerprint

        network = load_network(self.identity["source"])
        # An int8 file has its network's fingerprint with the suffix "-int8".
        if fingerprint(network) != self.identity["model"].removesuffix("-int8"):
            raise UserError(f"{self.identity['source']} is now another network")
        return network


def load_extractor(
    source: str | None,
    scales: Sequence[float] = (1.0,),
    max_side: int | None = None,
    backend: str = "auto",
    colour: Colour = "srgb",
    decoding: Decoding = "scaled",
    fingerprint: str | None = None,
    threads: int = 0,
    adapter: Adapter | None = None,
) -> LoadedExtractor:
    """An extractor for the network named `source` (see `load_network`), by default `default_source`.

    Args:
        scales: factors on a photo's size; the descriptors are averaged.
        max_side: larger photos are shrunk to this many pixels first; None for the network's own side.
        backend: "torch" uses a GPU if there is one (not tried on one yet). "onnx" runs on the CPU: the file in the
            exported folder if it belongs to this network, otherwise one that is exported once per network and cached.
            "auto" is "onnx" if there is no GPU, onnxruntime is installed, and the network's graph is packaged here or
            is cached and was faster (see `choose_backend`, which exports it); otherwise it is "torch". The backend is
            not part of the identity: descriptors agree within 1e-4. An ONNX file with other descriptors, such as an
            int8 one, has its own `source`.
        colour, decoding: how photos are read, see `Reading`.
        fingerprint: fingerprint of the network, if known: its ONNX file is then found without torch.
        threads: number of cores for one pass through an ONNX file; 0 for all.
        adapter: adapter of the descriptors.

    Raises UserError for an unknown backend, an adapter of another network, and like `load_network` and `write_onnx`.
    """
    if backend not in get_args(Backend):
        raise UserError(f"--backend is {', '.join(get_args(Backend)[:-1])} or {get_args(Backend)[-1]}, not {backend}")
    source = default_source() if source is None else source
    size = None if max_side is None else size_of(max_side, scales)
    session = find_session(source, backend, fingerprint, size, threads)
    if session is None and backend == "onnx":
        session = _exported_session(source, threads)
    if session is not None:
        loaded, describer = None, OnnxDescriber(session, scales)
        made_by, dim, side = session.about["fingerprint"], session.dim, session.side
    else:
        loaded, made_by = _torch_extractor(source, scales)
        describer, dim, side = TorchDescriber(loaded), loaded.model.dim, loaded.model.side
    identity = {
        "model": made_by,
        "title": title_of(source),
        "source": address_of(source),
        "dim": dim,
        "scales": [float(scale) for scale in scales],
        "max_side": side if max_side is None else max_side,
        "colour": colour,
        "decoding": decoding,
    }
    if adapter is None:
        return LoadedExtractor(describer, identity, loaded)
    adapter.check(made_by, dim)
    identity |= {"adapter": adapter.fingerprint, "dim": adapter.dim}
    return LoadedExtractor(AdaptedDescriber(describer, adapter), identity, loaded, adapter)


def size_of(max_side: int, scales: Sequence[float]) -> str:
    """The size of photos as a library describes them, for `KeptGraph`.

    >>> size_of(1024, [1, 0.5])
    '1024 at 1, 0.5'
    """
    return f"{max_side} at {', '.join(f'{scale:g}' for scale in scales)}"


def find_session(
    source: str, backend: str, fingerprint: str | None, size: str | None, threads: int = 0
) -> Session | None:
    """The ONNX file for running a network, if it can be found without torch.

    Without a fingerprint there is none; and without a size, none that is used because it was faster.
    """
    path = Path(source)
    if source.endswith(".onnx") and path.is_file():
        return Session(path, threads)
    if source in GRAPHS and (backend == "onnx" or (backend == "auto" and onnx_is_faster())):
        return _packaged_session(source, threads)
    if fingerprint is None:
        return None
    if backend == "onnx":
        return own_session(path, fingerprint, threads) or kept_graph(fingerprint, source).session(threads)
    if backend == "auto" and size and can_export():
        kept = kept_graph(fingerprint, source)
        return kept.session(threads) if (kept.speedup(size) or 0) >= FASTER else None
    return None


def kept_graph(fingerprint: str, source: str) -> KeptGraph:
    """The entry of the user's cache for the network named `source`."""
    return KeptGraph(fingerprint, address_of(source))


def own_session(folder: Path, fingerprint: str, threads: int) -> Session | None:
    """The exported folder's ONNX file, if it belongs to this network."""
    if (folder / ONNX_FILE).is_file():
        session = Session(folder / ONNX_FILE, threads)
        if session.about["fingerprint"] == fingerprint and session.about["normalisation"] == INSIDE:
            return session
    return None


def can_export() -> bool:
    """Whether `onnx_is_faster` and the packages for exporting are installed."""
    return onnx_is_faster() and all(importlib.util.find_spec(package) for package in EXPORT_PACKAGES)


def _packaged_session(source: str, threads: int) -> Session:
    """The graph of a packaged network, completed by the weights from their own package."""
    weights = locate(PRETRAINED[source][0]["weights"])
    data = weights.read_bytes()
    session = Session(GRAPHS[source], threads, {weights.name: data})
    if hashlib.sha256(data).hexdigest() != session.about["weights"]:
        raise UserError(f"{weights} is damaged, or has another version: install its package again")
    return session


def _exported_session(source: str, threads: int) -> Session:
    """The ONNX file of a network, which is loaded with torch and exported if needed."""
    from dolglab.extraction.descriptor_store import fingerprint

    here = source
    if is_hub_folder(source):
        from dolglab.sharing.hub import fetch

        here = str(fetch(source, ONNX_FILE))
    network = load_network(here)
    made_by = fingerprint(network)
    kept = kept_graph(made_by, source)
    session = own_session(Path(here), made_by, threads) or kept.session(threads)
    if session is None:
        print("exporting the network to ONNX (only once)", file=sys.stderr)
        kept.write(network)
        session = Session(kept.path, threads)
    return session


def _torch_extractor(source: str, scales: Sequence[float]) -> tuple[Extractor, str]:
    """The torch extractor, and the network's fingerprint."""
    import torch

    from dolglab.extraction.descriptor_store import fingerprint
    from dolglab.extraction.extractor import Extractor, for_inference

    network = load_network(source)
    made_by = fingerprint(network)
    network = network.to("cuda" if torch.cuda.is_available() else "cpu")
    return Extractor(for_inference(network), scales), made_by

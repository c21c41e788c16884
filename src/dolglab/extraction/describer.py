"""Compute descriptors of photos as arrays, with torch, or with onnxruntime and without torch."""

from __future__ import annotations

import importlib.util
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dolglab.concurrency import available_cores
from dolglab.contracts import DEFAULT_SIDE, FloatArray
from dolglab.data.colour import Pixels
from dolglab.errors import UserError
from dolglab.extraction.shapes import ONNX_PIXELS, ShapeBuckets, check_protocol, scaled_sides

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from dolglab.extraction.extractor import Extractor

# The ONNX file of an exported folder, and the names of its input and output.
ONNX_FILE = "model.onnx"
INPUT, OUTPUT = "images", "descriptors"
# Where images are normalised, as stated in the file's metadata.
INSIDE, OUTSIDE = "inside", "outside"


class Describer(ABC):
    """Computes L2-normalised descriptors of photos of any shape, float32.

    Attributes:
        workers: the best number of parallel passes, each in its own thread that has called `share_cores`.
    """

    workers: int

    def __call__(self, photos: Sequence[Pixels]) -> FloatArray:
        """Descriptors, (n, dim), of photos, RGB (H, W, 3) each, in the given order."""
        buckets = self.buckets()
        groups = [group for i, photo in enumerate(photos) for group in buckets.add(i, photo)]
        groups += buckets.rest()
        found = np.concatenate([self.together([photo for _, photo in group]) for group in groups])
        return found[np.argsort([place for group in groups for place, _ in group])]

    @abstractmethod
    def buckets(self) -> ShapeBuckets[Pixels]:
        """A new `ShapeBuckets` that groups photos for `together`."""

    @abstractmethod
    def together(self, photos: Sequence[Pixels]) -> FloatArray:
        """Descriptors, (n, dim), of photos of one shape."""

    @abstractmethod
    def share_cores(self) -> None:
        """Make the calling thread leave cores to the other workers."""


class TorchDescriber(Describer):
    """Uses an `Extractor`, on the network's device."""

    def __init__(self, extractor: Extractor) -> None:
        import torch

        self.extractor = extractor
        # On a CPU, one thread for each of several photos is faster than all threads for one photo after another.
        self.workers = torch.get_num_threads() if extractor.device.type == "cpu" else 1
        self._threads = max(1, torch.get_num_threads() // self.workers)

    def buckets(self) -> ShapeBuckets[Pixels]:
        return ShapeBuckets(self.extractor.buckets().pixels)

    def together(self, photos: Sequence[Pixels]) -> FloatArray:
        import torch

        with torch.inference_mode():
            return self.extractor.together([torch.from_numpy(photo) for photo in photos]).float().cpu().numpy()

    def share_cores(self) -> None:
        import torch

        torch.set_num_threads(self._threads)


class OnnxDescriber(Describer):
    """Uses an ONNX file on the CPU; descriptors are within 1e-4 of those that torch computes.

    Args:
        session: the ONNX file.
        scales: factors on the photo's size; the descriptors are averaged.

    Raises UserError for invalid scales, and for a file that expects normalised images.
    """

    def __init__(self, session: Session, scales: Sequence[float] = (1.0,)) -> None:
        check_protocol(scales, "released")
        if session.about["normalisation"] != INSIDE:
            raise UserError("the ONNX file expects normalised images: export it without --normalised-input")
        self.session = session
        self.scales = tuple(float(scale) for scale in scales)
        self.workers = max(1, available_cores() // session.threads)

    def buckets(self) -> ShapeBuckets[Pixels]:
        return ShapeBuckets(ONNX_PIXELS / max(1.0, *self.scales) ** 2)

    def together(self, photos: Sequence[Pixels]) -> FloatArray:
        found = [self.session(_scaled(photos, scale)) for scale in self.scales]
        if len(found) == 1:
            return found[0]
        mean = np.mean(found, axis=0, dtype=np.float32)
        return (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)

    def share_cores(self) -> None:
        """Each session has its own threads."""


class AdaptedDescriber(Describer):
    """Adapts the descriptors of another describer, from (n, D) to (n, d)."""

    def __init__(self, describer: Describer, adapt: Callable[[FloatArray], FloatArray]) -> None:
        self.workers = describer.workers
        self._describer, self._adapt = describer, adapt

    def buckets(self) -> ShapeBuckets[Pixels]:
        return self._describer.buckets()

    def together(self, photos: Sequence[Pixels]) -> FloatArray:
        return self._adapt(self._describer.together(photos))

    def share_cores(self) -> None:
        self._describer.share_cores()


def _scaled(photos: Sequence[Pixels], scale: float) -> FloatArray:
    """Photos resized by `scale`, (n, 3, h, w): bilinear, no antialiasing; sides are whole pixels, at least one."""
    images = [photo.astype(np.float32) for photo in photos]
    if scale != 1:
        import cv2

        height, width = scaled_sides(photos[0].shape[:2], scale)
        images = [cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR) for image in images]
    return np.stack([image.transpose(2, 0, 1) for image in images]).astype(np.float32, copy=False)


def onnx_is_faster() -> bool:
    """Whether onnxruntime is installed, and there is no GPU that torch would use."""
    return importlib.util.find_spec("onnxruntime") is not None and shutil.which("nvidia-smi") is None


def open_graph(path: str | Path, threads: int, weights: Mapping[str, bytes] | None = None) -> InferenceSession:
    """Open an ONNX file in onnxruntime, on the CPU; the arguments are those of `Session`.

    Raises UserError if onnxruntime is missing or cannot run the file.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError("ONNX needs onnxruntime: pip install 'dolglab[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A thread that spins while waiting would take a core from another photo.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Otherwise it would keep a memory plan for every shape of photo.
    options.enable_mem_pattern = False
    # The runtime's warnings are meant for its developers.
    options.log_severity_level = 3
    if weights:
        sizes = [len(data) for data in weights.values()]
        options.add_external_initializers_from_files_in_memory(list(weights), list(weights.values()), sizes)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"{path} cannot be run by onnxruntime ({type(error).__name__})") from error


class Session:
    """An ONNX file that is ready to run.

    Args:
        path: the file.
        threads: number of cores for one pass; 0 for all.
        weights: contents of the external files that the ONNX file refers to, by name.

    Attributes:
        about: the file's metadata.
        dim: length of its descriptors.
        side: default size in pixels to which the longer side of photos is shrunk.

    Raises UserError if onnxruntime is missing or the file was not written by this project. A call raises it for images
    that cannot be described, and for descriptors of an unexpected shape.
    """

    def __init__(self, path: str | Path, threads: int = 0, weights: Mapping[str, bytes] | None = None) -> None:
        self.threads = threads or available_cores()
        self._session = open_graph(path, self.threads, weights)
        self.about: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if not {"fingerprint", "normalisation", "dim"} <= self.about.keys():
            raise UserError(f"{path} does not describe itself: it was not written by `dolglab export`")
        ends = [[end.name for end in both] for both in (self._session.get_inputs(), self._session.get_outputs())]
        # Files of earlier versions do not state a side.
        dim, side = self.about["dim"], self.about.get("side", str(DEFAULT_SIDE))
        if ends != [[INPUT], [OUTPUT]] or not (dim.isdecimal() and side.isdecimal() and int(side)):
            raise UserError(f"{path} maps {ends[0]} to {ends[1]} of {dim}: it was not written by `dolglab export`")
        self.dim, self.side = int(dim), int(side)

    def __call__(self, images: FloatArray) -> FloatArray:
        """Descriptors, (b, dim), L2-normalised, of images (b, 3, h, w)."""
        try:
            found = np.asarray(self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(images)})[0])
        except Exception as error:
            # onnxruntime's exceptions have no common base class.
            raise UserError(f"the ONNX file cannot describe images {images.shape} ({type(error).__name__})") from error
        if found.shape != (len(images), self.dim) or found.dtype != np.float32:
            raise UserError(f"the ONNX file returns {found.dtype} {found.shape}, not descriptors of {self.dim} values")
        return found

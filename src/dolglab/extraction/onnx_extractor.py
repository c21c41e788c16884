"""The extractor with onnxruntime instead of torch, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dolglab.contracts import FloatArray
from dolglab.errors import UserError
from dolglab.extraction.extractor import Extractor
from dolglab.models.dolg import DescriptorModel

INPUT, OUTPUT = "images", "descriptors"


class Session:
    """An ONNX file that is ready to run, with as many threads as torch has.

    Attributes:
        about: what the file says of itself.

    Raises UserError where onnxruntime is missing, or the file is none that this project wrote.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise UserError("ONNX wants onnxruntime: pip install 'dolglab[onnx]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Warnings of the runtime are for those who make it.
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise UserError(f"{path} cannot be run by onnxruntime ({type(error).__name__})") from error
        self.about: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if not {"fingerprint", "normalisation", "dim"} <= self.about.keys():
            raise UserError(f"{path} does not say what it is: no file that `dolglab export` wrote")

    def __call__(self, images: FloatArray) -> FloatArray:
        """(b, 3, h, w) to (b, dim), L2-normalised."""
        return np.asarray(self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(images)})[0])


class OnnxExtractor(Extractor):
    """As `Extractor`, its descriptors within 1e-4, but made by a file that stands for the network.

    Args:
        model: the network the file was made from; it says what else is asked of a network.
        session: the file.
        protocol, more: the other arguments of `Extractor`.

    Raises UserError as `Extractor`, and for a file that wants normalised images.
    """

    def __init__(self, model: DescriptorModel, session: Session, *protocol: Any, **more: Any) -> None:
        super().__init__(model, *protocol, **more)
        if session.about["normalisation"] != "inside":
            raise UserError("the ONNX file wants normalised images: export it without --normalised-input")
        self.session = session

    @property
    def side_by_side(self) -> int:
        """One pass: the runtime has threads of its own."""
        return 1

    def describe(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return torch.from_numpy(self.session(pixels.numpy()))

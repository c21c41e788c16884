"""Networks as ONNX files: written, checked against torch, and what they say of themselves."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from src.contracts import InputError
from src.extraction.onnx_extractor import INPUT, OUTPUT, Session
from src.extraction.store import fingerprint
from src.models.dolg import DescriptorModel
from src.sharing.graph import Describing

FILE, OPSET = "model.onnx", 20
# What an equal graph may differ by, in numbers of an L2-normalised descriptor.
TOLERANCE = 1e-4
# Images, height and width of what it is compared on; no side is a multiple of a stride or a patch.
SHAPES = ((1, 64, 64), (3, 97, 131), (1, 150, 75))
INSIDE, OUTSIDE = "inside", "outside"


def write_onnx(network: DescriptorModel, path: Path, normalised: bool = False) -> float:
    """Write a network as `path`, compared with torch over several shapes; the largest difference of a number.

    Args:
        normalised: whether the graph takes normalised images, and not RGB in 0..255.

    Raises InputError where a package is missing, the network does not go into ONNX, or the file would give something
    else than torch; nothing is then written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _export(Describing(network, normalised), aside, about(network, normalised))
        worst = difference(network, Session(aside), normalised)
        if not worst <= TOLERANCE:
            raise InputError(f"{path.name} would differ from torch by {worst:.1e} (allowed: {TOLERANCE:.0e})")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return worst


def about(network: DescriptorModel, normalised: bool) -> dict[str, str]:
    """What a file says of itself."""
    pixels = "normalised by mean and std" if normalised else "RGB, 0..255"
    return {
        "fingerprint": fingerprint(network),
        "architecture": f"{type(network).__name__} on {network.backbone.name}",
        "dim": str(network.dim),
        "normalisation": OUTSIDE if normalised else INSIDE,
        "mean": " ".join(map(str, network.backbone.mean)),
        "std": " ".join(map(str, network.backbone.std)),
        "input": f"float32 (batch, 3, height, width), {pixels}",
        "output": f"float32 (batch, {network.dim}), L2-normalised",
    }


def difference(network: DescriptorModel, session: Session, normalised: bool = False) -> float:
    """By how much the runtime's numbers differ from torch's, at most, over several shapes of noise."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, height, width in SHAPES:
        images = torch.randint(0, 256, (batch, 3, height, width), generator=generator).float()
        with torch.inference_mode():
            ready = network.backbone.normalise(images)
            expected = F.normalize(network.eval()(ready)).numpy()
        found = session((ready if normalised else images).numpy())
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def _export(graph: torch.nn.Module, path: Path, metadata: Mapping[str, Any]) -> None:
    axes = {0: "batch", 2: "height", 3: "width"}
    example = torch.rand(2, 3, 227, 261) * 255
    try:
        with _quietly(), torch.no_grad():
            program = torch.onnx.export(
                graph.eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=(axes,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                verbose=False,
            )
    except ModuleNotFoundError as error:
        raise InputError(f"ONNX wants {error.name}: pip install -e '.[onnx]'") from None
    except Exception as error:
        raise InputError(f"the network does not go into ONNX ({type(error).__name__})") from error
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(path)


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter's notes on its own steps, which say nothing to a person, are kept out."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

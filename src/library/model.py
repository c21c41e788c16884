"""The network that a library's descriptors are made with, and what identifies it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.extraction.extractor import Extractor
from src.extraction.onnx_extractor import OnnxExtractor
from src.extraction.store import fingerprint
from src.sharing.backend import make_extractor
from src.sharing.named import named
from src.sharing.onnx_file import FILE


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


def ready_model(
    source: str | None, scales: Sequence[float] = (1.0,), max_side: int = 1024, backend: str = "torch"
) -> Ready:
    """A network by what a person names (see `named`).

    Args:
        source: names it.
        scales: of each photo, whose descriptors are averaged.
        max_side: photos are shrunk to this many pixels before.
        backend: what runs the network, torch or onnx. It is no part of the identity: both give the same descriptors
            within 1e-4. An ONNX file that gives others, such as an int8 one, is named itself.

    Raises InputError as `named` and `make_extractor`.
    """
    found = named(source, FILE if backend == "onnx" else None)
    extractor = make_extractor(found, scales, backend)
    made_by = (
        extractor.session.about["fingerprint"] if isinstance(extractor, OnnxExtractor) else fingerprint(found.network)
    )
    identity = {
        "model": made_by,
        "title": found.title,
        "source": found.source,
        "dim": found.network.dim,
        "scales": [float(scale) for scale in scales],
        "max_side": max_side,
    }
    return Ready(extractor, found.title, identity)

"""DOLG landmark retrieval: train, evaluate and use, with PyTorch Lightning and Hydra.

The public names are imported from here: `from dolglab import DOLG, Backbone`. The first such import loads torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dolglab.version import __version__ as __version__

if sys.platform == "win32":
    raise ImportError("DOLG Lab runs on Linux and macOS; on Windows, run it in WSL 2 (docs/install.md)")

if TYPE_CHECKING:
    from dolglab.contracts import Colour, Decoding
    from dolglab.losses.margin import ArcFace as ArcFace
    from dolglab.losses.margin import CosFace as CosFace
    from dolglab.losses.margin import CurricularFace as CurricularFace
    from dolglab.losses.margin import DynamicArcFace as DynamicArcFace
    from dolglab.losses.margin import Softmax as Softmax
    from dolglab.losses.margin import SubCenterArcFace as SubCenterArcFace
    from dolglab.measures import revisited_evaluation as revisited_evaluation
    from dolglab.models.backbone import Backbone as Backbone
    from dolglab.models.delg import DELG as DELG
    from dolglab.models.dolg import DOLG as DOLG
    from dolglab.models.dolg import GlobalDescriptor as GlobalDescriptor
    from dolglab.models.fusion import orthogonal_fusion as orthogonal_fusion
    from dolglab.models.local_branch import LocalBranch as LocalBranch
    from dolglab.models.pooling import RMAC as RMAC
    from dolglab.models.pooling import GeM as GeM
    from dolglab.models.pooling import gem as gem
    from dolglab.sharing.loading import LoadedModel

_PUBLIC = {
    "losses.margin": ("ArcFace", "CosFace", "CurricularFace", "DynamicArcFace", "Softmax", "SubCenterArcFace"),
    "models.backbone": ("Backbone",),
    "models.delg": ("DELG",),
    "models.dolg": ("DOLG", "GlobalDescriptor"),
    "models.fusion": ("orthogonal_fusion",),
    "models.local_branch": ("LocalBranch",),
    "models.pooling": ("GeM", "RMAC", "gem"),
    "measures": ("revisited_evaluation",),
}
_MODULES = {name: f"{__name__}.{module}" for module, names in _PUBLIC.items() for name in names}
__all__ = [*_MODULES, "load"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """A public name; its module is imported at the first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def load(
    source: str | Path,
    scales: Sequence[float] = (1.0,),
    max_side: int | None = None,
    colour: Colour = "srgb",
    decoding: Decoding = "scaled",
) -> LoadedModel:
    """Load a trained network as a function of images (see `LoadedModel`): `load("model")("/path/to/photo.jpg")`.

    Args:
        source: a checkpoint, an exported folder, hf://OWNER/NAME, released weights, "dinov2", "efficientnet_lite0", or
            KIND:WHAT, such as "timm:resnet50.a1_in1k" or "onnx:FILE" (docs/models.md).
        scales: factors on an image's size; the descriptors are averaged.
        max_side: larger images are shrunk to this many pixels first; None uses the network's own default.
        colour: "srgb" converts images from their ICC profiles, "ignore" uses their values as sRGB.
        decoding: "scaled" decodes large JPEG files at a reduced size, "full" at their full size.

    Raises UserError for an unknown source.
    """
    from dolglab.sharing.loading import LoadedModel

    return LoadedModel(source, scales, max_side, colour, decoding)

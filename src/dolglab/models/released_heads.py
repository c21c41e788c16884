"""Released weights of place recognition, recognised by their keys: SALAD, MegaLoc, BoQ and MixVPR.

All four store a backbone below `backbone.` and a head below `aggregator.`; inside, the heads have the names used here.
The backbone is DINOv2's ViT-B/14, or ResNet-50 up to its third stage. MegaLoc (Berton and Masone, CVPR 2025) is SALAD
with 256 numbers per cluster, followed by a linear layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dolglab.contracts import ExtractionProtocol
from dolglab.errors import UserError
from dolglab.models.backbone import NOT_STATED
from dolglab.models.checkpoint import build_model
from dolglab.models.weights import below, check_finite, check_fit, read_file, tensors_of, with_counters

TRUNK, HEAD = "backbone.", "aggregator."
# The prefixes of MegaLoc's SALAD, and of the layer after it.
MEGALOC, MEGALOC_LAYER = "agg.", "linear."
DINOV2, RESNET50 = "vit_base_patch14_dinov2.lvd142m", "resnet50.tv_in1k"
# The first part of a ResNet's names, by its position in a list of modules (BoQ).
RESNET_PLACES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3"}
# DINOv2 uses it for training only; no descriptor depends on it.
MASK_TOKEN = "mask_token"


@dataclass(frozen=True)
class HeadKind:
    """Released networks that end in a head of their own.

    Attributes:
        pooling: class of the head.
        layer: whether a linear layer follows.
        protocol: how images are described: the longer side is shrunk to the side of the square to which its authors
            resize images.
        licence: licence of the weights, as their repository states it.
    """

    pooling: str
    layer: bool
    protocol: ExtractionProtocol
    licence: str = NOT_STATED


HEADS: dict[str, HeadKind] = {
    "salad": HeadKind("SALAD", False, ExtractionProtocol((1.0,), max_side=322), "gpl-3.0"),
    "megaloc": HeadKind("SALAD", True, ExtractionProtocol((1.0,), max_side=322)),
    "boq": HeadKind("BoQ", False, ExtractionProtocol((1.0,), max_side=384), "mit"),
    "mixvpr": HeadKind("MixVPR", False, ExtractionProtocol((1.0,), max_side=320)),
}


def is_released_head(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of one of these networks."""
    return any(key.startswith(HEAD) for key in tensors)


def read_head(kind: str, source: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors, under this project's names, of a released network of `HEADS[kind]`.

    Raises UserError like `read_released_head`, and for a network of another kind.
    """
    head, (config, tensors) = HEADS[kind], read_released_head(source)
    pooling = str(config["pooling"]["_target_"]).rpartition(".")[2]
    if (pooling, config["dim"] is not None) != (head.pooling, head.layer):
        raise UserError(f"{kind}:{source} holds another network: its head is {pooling}")
    return {**config, "backbone": {**config["backbone"], "licence": head.licence}}, tensors


def read_released_head(
    source: str | Path | Mapping[str, Tensor], name: str = "the state dict"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors, under this project's names, of a released network with any of these heads.

    Args:
        source: a file, `hf://OWNER/NAME/FILE`, or its tensors by name.
        name: the name of given tensors in error messages.

    Raises UserError if the file does not exist or contains code, and if tensors are missing, unknown, of another shape
    or not finite.
    """
    if not isinstance(source, Mapping):
        name = str(source)
    stored = tensors_of(source if isinstance(source, Mapping) else read_file(source), name)
    head, layer = below(stored, HEAD), {}
    if any(key.startswith(MEGALOC) for key in head):
        head, layer = below(head, MEGALOC), below(head, MEGALOC_LAYER)
    trunk = below(stored, TRUNK)
    transformer = any(key.endswith("cls_token") for key in trunk)
    pooling = _pooling_of(head, name)
    dim = len(layer["bias"]) if "bias" in layer else None
    config = network_config(pooling, transformer, dim)
    found = {
        **(_dinov2_tensors(trunk, config["backbone"]["final_norm"]) if transformer else _resnet_tensors(trunk)),
        **{f"pooling.{key}": value for key, value in head.items()},
        **{f"fc.{key}": value for key, value in layer.items()},
    }
    expected = build_model(config).state_dict()
    found = with_counters(found, expected)
    check_fit(expected, found, name)
    check_finite(found, name)
    return config, found


def network_config(pooling: Mapping[str, Any], transformer: bool, dim: int | None) -> dict[str, Any]:
    """The network of a released head. SALAD's backbone includes DINOv2's last norm, that of BoQ does not."""
    trunk: dict[str, Any] = {"name": RESNET50, "reductions": [16, 16]}
    if transformer:
        normed = str(pooling["_target_"]).endswith("SALAD")
        trunk = {"name": DINOV2, "depths": [7, 11], "options": {"dynamic_img_size": True}, "final_norm": normed}
    return {
        "_target_": "dolglab.models.dolg.GlobalDescriptor",
        "backbone": {"_target_": "dolglab.models.backbone.Backbone", **trunk},
        "pooling": {"_partial_": True, **pooling},
        "dim": dim,
    }


def _pooling_of(head: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """A head's class and sizes, from the names and shapes of its tensors.

    Raises UserError for an unknown or incomplete head.
    """
    try:
        if "dust_bin" in head:
            return {
                "_target_": "dolglab.models.salad.SALAD",
                "clusters": len(head["score.3.bias"]),
                "cluster_dim": len(head["cluster_features.3.bias"]),
                "token_dim": len(head["token_features.2.bias"]),
            }
        if "boqs.0.queries" in head:
            return {
                "_target_": "dolglab.models.boq.BoQ",
                "dim_channels": len(head["proj_c.bias"]),
                "queries": head["boqs.0.queries"].shape[1],
                "blocks": _count(head, r"boqs\.(\d+)\."),
                "rows": len(head["fc.bias"]),
            }
        if "channel_proj.weight" in head:
            places = head["row_proj.weight"].shape[1]
            side = round(places**0.5)
            return {
                "_target_": "dolglab.models.mixvpr.MixVPR",
                "map_size": [side, side],
                # The same as the authors' head at its training size; other sizes are accepted too.
                "resize": True,
                "dim_channels": len(head["channel_proj.bias"]),
                "rows": len(head["row_proj.bias"]),
                "depth": _count(head, r"mix\.(\d+)\."),
                "ratio": len(head["mix.0.mix.1.bias"]) / places,
            }
    except KeyError as error:
        raise UserError(f"{name} holds an incomplete released head: {error} is missing") from error
    except (IndexError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{name} holds a released head with tensors of another shape: {error}") from error
    raise UserError(f"{name} holds none of the heads of SALAD, MegaLoc, BoQ and MixVPR below {HEAD}")


def _count(head: Mapping[str, Tensor], pattern: str) -> int:
    """The number of layers, from the numbers in their names."""
    return len({match[1] for key in head if (match := re.match(pattern, key))})


def _dinov2_tensors(trunk: Mapping[str, Tensor], final_norm: bool) -> dict[str, Tensor]:
    """The tensors below `model.` (SALAD, MegaLoc) or `dino.` (BoQ): timm uses the names of DINOv2's own code."""
    named = {key.partition(".")[2]: value for key, value in trunk.items()}
    unused = {MASK_TOKEN} if final_norm else {MASK_TOKEN, "norm.weight", "norm.bias"}
    return {f"backbone.net.model.{name}": value for name, value in named.items() if name not in unused}


def _resnet_tensors(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors below `model.` (MixVPR, torchvision's names) or `net.` (BoQ, whose first parts are positions)."""
    found = {}
    for key, value in trunk.items():
        first, _, rest = key.partition(".")[2].partition(".")
        found[f"backbone.net.{RESNET_PLACES.get(first, first)}.{rest}"] = value
    return found

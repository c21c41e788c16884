"""The released DOLG weights: pycls checkpoints in BGR, read as this project's network in RGB."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dolglab.errors import UserError
from dolglab.models.checkpoint import build_model
from dolglab.models.dolg import DescriptorModel
from dolglab.models.weights import check_finite, check_fit, read_file, tensors_of, with_counters

# Residual blocks of each stage, which distinguish the networks of the family.
BLOCKS = {"resnet50.tv_in1k": (3, 4, 6, 3), "resnet101.tv_in1k": (3, 4, 23, 3)}
CENTRES, MEAN_COSINE = "desc_cls.weight", "desc_cls.t"


@dataclass(frozen=True)
class Released:
    """A released checkpoint's tensors under this project's names.

    Attributes:
        backbone: timm's name of the ResNet.
        aspp: whether the local branch has ASPP.
        model: the tensors of the `DOLG` network, colours in RGB order.
        centres: class centres of the margin head, (classes, 512).
        mean_cosine: the running mean t of target cosines of its curricular head, (1,).
    """

    backbone: str
    aspp: bool
    model: dict[str, Tensor]
    centres: Tensor
    mean_cosine: Tensor


def load_released(source: str | Path | Mapping[str, Tensor]) -> DescriptorModel:
    """The released network (Yang et al., ICCV 2021) in eval mode; its weights decide whether it has ASPP.

    Args:
        source: a `.pyth` file, `hf://OWNER/NAME/FILE`, or its tensors by name.

    Raises:
        UserError: if the file does not exist or contains code, if tensors are missing, unknown, of another shape or not
            finite, or if it is a network other than R50 and R101.
    """
    released = read_released(source)
    model = build_model(released_config(released.backbone, released.aspp))
    model.load_state_dict(released.model)
    return model.eval()


def is_released(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of a released checkpoint."""
    return any(key.startswith("globalmodel.") for key in tensors)


def read_released(source: str | Path | Mapping[str, Tensor], name: str = "the state dict") -> Released:
    """A released checkpoint's parts. Raises UserError like `load_released`; errors call given tensors `name`."""
    if not isinstance(source, Mapping):
        name = str(source)
    stored = tensors_of(source if isinstance(source, Mapping) else read_file(source), name)
    backbone, aspp = _network_of(stored, name), any(key.startswith("localmodel.aspp.") for key in stored)
    network, modules = build_model(released_config(backbone, aspp)).state_dict(), released_modules(backbone, aspp)
    # The head's tensors may have any shape.
    head = {key: stored.get(key, torch.empty(0)) for key in (CENTRES, MEAN_COSINE)}
    model = fitted(network, modules, stored, name, head)
    model["backbone.net.conv1.weight"] = model["backbone.net.conv1.weight"].flip(1)
    return Released(backbone, aspp, model, stored[CENTRES], stored[MEAN_COSINE])


def released_config(backbone: str, aspp: bool) -> dict[str, Any]:
    """The released architecture as a model's configuration: learnable p, an additional 1x1 branch in ASPP."""
    return {
        "_target_": "dolglab.models.dolg.DOLG",
        "backbone": {"_target_": "dolglab.models.backbone.Backbone", "name": backbone},
        "pooling": {"_target_": "dolglab.models.pooling.GeM", "_partial_": True, "learnable": True},
        "local": {
            "_target_": "dolglab.models.local_branch.LocalBranch",
            "_partial_": True,
            "aspp": aspp,
            "pointwise": True,
        },
    }


def released_modules(backbone: str, aspp: bool) -> dict[str, str]:
    """The released names of our network's modules; the tensors inside have the same names in both."""
    found = {"pooling": "pool_g", "fc_global": "fc_t", "fc": "fc", **pycls_modules(BLOCKS[backbone], "globalmodel.")}
    if aspp:
        found |= {"local.aspp.pool": "localmodel.aspp.im_pool.1", "local.aspp.project": "localmodel.aspp.conv_after.0"}
        found |= {f"local.aspp.branches.{i}": f"localmodel.aspp.aspp.{i}" for i in range(4)}
    attention = {"conv": "conv1", "norm": "bn", "score": "conv2"}
    return found | {f"local.attention.{ours}": f"localmodel.{theirs}" for ours, theirs in attention.items()}


def fitted(
    network: Mapping[str, Tensor],
    modules: Mapping[str, str],
    stored: Mapping[str, Tensor],
    name: str,
    beside: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Stored tensors under our names.

    Args:
        network: our tensors.
        modules: the file's module names, by our names.
        stored: the file's tensors.
        name: the file's name in error messages.
        beside: other tensors that the file must hold, by its names.

    Raises UserError for tensors missing, unknown, of another shape or not finite.
    """
    parts = [(*ours.rpartition("."), ours) for ours in network]
    names = {f"{modules[module]}.{tensor}": ours for module, _, tensor, ours in parts}
    expected = {theirs: network[ours] for theirs, ours in names.items()} | dict(beside or {})
    stored = with_counters(stored, expected)
    check_fit(expected, stored, name)
    check_finite(stored, name)
    return {ours: stored[theirs] for theirs, ours in names.items()}


def pycls_modules(blocks: Sequence[int], prefix: str) -> dict[str, str]:
    """pycls' names, below a prefix, for the modules of our ResNet with these numbers of bottleneck blocks per stage."""
    found = {"backbone.net.conv1": f"{prefix}stem.conv", "backbone.net.bn1": f"{prefix}stem.bn"}
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            theirs, ours = f"{prefix}s{stage}.b{block + 1}", f"backbone.net.layer{stage}.{block}"
            if block == 0:
                found |= {f"{ours}.downsample.0": f"{theirs}.proj", f"{ours}.downsample.1": f"{theirs}.bn"}
            for place, letter in enumerate("abc", start=1):
                found |= {f"{ours}.conv{place}": f"{theirs}.f.{letter}", f"{ours}.bn{place}": f"{theirs}.f.{letter}_bn"}
    return found


def _network_of(stored: Mapping[str, Tensor], name: str) -> str:
    """The smallest network with as many blocks in the third stage; an incomplete checkpoint then lacks keys."""
    if not is_released(stored):
        raise UserError(f"{name} is not a released DOLG checkpoint: it has no tensor globalmodel.s1.b1...")
    found = [re.match(r"globalmodel\.s3\.b(\d+)\.", key) for key in stored]
    blocks = max((int(match[1]) for match in found if match), default=0)
    for backbone, expected in BLOCKS.items():
        if blocks <= expected[2]:
            return backbone
    raise UserError(f"{name} has {blocks} blocks in its third stage: only R50 (6) and R101 (23) were released")

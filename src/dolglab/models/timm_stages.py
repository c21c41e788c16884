"""What timm's networks are made of: their stages, and which modules run before the end of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import timm
import torch
from timm.models import FeatureInfo
from torch import nn

from dolglab.errors import UserError


class Stage(NamedTuple):
    """The module whose output is a map, and that map's reduction."""

    module: str
    reduction: int


def stages(name: str, options: Mapping[str, Any]) -> list[Stage]:
    """A network's stages from input to output; of a transformer with one stride, its blocks.

    Raises UserError for a network that gives no maps.
    """
    try:
        with torch.device("meta"):
            net = timm.create_model(name, pretrained=False, features_only=True, **options)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise UserError(f"backbone {name} gives no feature maps with {dict(options)}: {error}") from error
    info: FeatureInfo = net.feature_info  # pyright: ignore[reportAssignmentType]
    found = [Stage(*pair) for pair in zip(info.module_name(), info.reduction(), strict=True)]
    blocks = getattr(getattr(net, "model", None), "blocks", None)
    if blocks is not None and len({stage.reduction for stage in found}) == 1:
        return [Stage(f"blocks.{block}", found[0].reduction) for block in range(len(blocks))]
    return found


def by_reduction(name: str, found: list[Stage], reduction: int) -> int:
    """The position of the stage with this reduction. Raises UserError when there is none, or more than one."""
    reductions = [stage.reduction for stage in found]
    if len(set(reductions)) < len(reductions):
        raise UserError(
            f"the maps of {name} share one stride: give backbone.depths=[a,b], blocks below {len(reductions)}"
        )
    if reduction not in reductions:
        raise UserError(f"backbone {name} has maps with reductions {reductions}, not {reduction}")
    return reductions.index(reduction)


def ends(net: nn.Module, found: list[Stage]) -> list[int]:
    """The place of each stage's last module in `net.modules()`, as far as the stages are in `net`."""
    names = [_flat(name) for name, _ in net.named_modules()]
    places = [[i for i, name in enumerate(names) if f"{name}_".startswith(f"{_flat(s.module)}_")] for s in found]
    return [inside[-1] for inside in places if inside]


def working_parts(modules: list[nn.Module]) -> list[nn.Module]:
    """Those that hold tensors of their own, or no other module: what can be frozen one by one."""
    return [
        module
        for module in modules
        if any(True for _ in module.parameters(recurse=False))
        or any(True for _ in module.buffers(recurse=False))
        or not any(True for _ in module.children())
    ]


def _flat(name: str) -> str:
    """timm's wrappers rename `stages.2` to `stages_2`, or put networks below `model`."""
    return name.removeprefix("model.").replace(".", "_")

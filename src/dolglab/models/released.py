"""The released DOLG weights: pycls checkpoints in BGR, read as this project's network in RGB."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from dolglab.errors import UserError, truncate_list
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import DOLG
from dolglab.models.local_branch import LocalBranch
from dolglab.models.pooling import GeM
from dolglab.models.weights import check_finite, read_file, tensors_of

# Residual blocks of each stage: what tells the networks of the family apart.
BLOCKS = {"resnet50.tv_in1k": (3, 4, 6, 3), "resnet101.tv_in1k": (3, 4, 23, 3)}
CENTRES, MEAN_COSINE = "desc_cls.weight", "desc_cls.t"

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_AFFINE = ("weight", "bias")


@dataclass(frozen=True)
class Released:
    """A released checkpoint's tensors under this project's names.

    Attributes:
        backbone: timm's name of the ResNet.
        aspp: whether the local branch has the pyramid.
        model: the tensors of the `DOLG` network, colours in RGB order.
        centres: class centres of the margin head, (classes, 512).
        mean_cosine: the running mean t of target cosines that its curricular head kept, (1,).
    """

    backbone: str
    aspp: bool
    model: dict[str, Tensor]
    centres: Tensor
    mean_cosine: Tensor


def load_released(source: str | Path | Mapping[str, Tensor]) -> DOLG:
    """The released network (Yang et al., ICCV 2021) in eval mode, with or without ASPP as its weights are.

    Args:
        source: a `.pyth` file, `hf://OWNER/NAME/FILE`, or its tensors by name.

    Raises:
        UserError: no such file, code in it, tensors missing, unknown, of another shape or not finite, or another
            network than R50 and R101.
    """
    released = read_released(source)
    model = released_network(released.backbone, released.aspp)
    model.load_state_dict(released.model)
    return model.eval()


def is_released(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of a released checkpoint."""
    return any(key.startswith("globalmodel.") for key in tensors)


def read_released(source: str | Path | Mapping[str, Tensor], name: str = "the state dict") -> Released:
    """A released checkpoint's parts. Raises UserError as `load_released`; `name` is what it calls given tensors."""
    if not isinstance(source, Mapping):
        name = str(source)
    stored = tensors_of(source if isinstance(source, Mapping) else read_file(source), name)
    backbone, aspp = _network_of(stored, name), any(key.startswith("localmodel.aspp.") for key in stored)
    names = dict(released_names(backbone, aspp))
    _check_keys(stored, {*names, CENTRES, MEAN_COSINE}, name)
    model = {ours: stored[theirs] for theirs, ours in names.items()}
    _check_shapes(model, released_network(backbone, aspp).state_dict(), name)
    check_finite(stored, name)
    model["backbone.net.conv1.weight"] = model["backbone.net.conv1.weight"].flip(1)
    return Released(backbone, aspp, model, stored[CENTRES], stored[MEAN_COSINE])


def released_config(backbone: str, aspp: bool) -> dict[str, Any]:
    """The released architecture as a model's configuration."""
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


def released_network(backbone: str, aspp: bool) -> DOLG:
    """The released architecture without weights: learnable p, the pyramid's further 1x1 branch."""
    return DOLG(
        Backbone(backbone, pretrained=False),
        pooling=partial(GeM, learnable=True),
        local=partial(LocalBranch, aspp=aspp, pointwise=True),
    )


def released_names(backbone: str, aspp: bool) -> Iterator[tuple[str, str]]:
    """Pairs of a released tensor's name and ours, the margin head's apart."""
    yield "pool_g.p", "pooling.p"
    yield from _named("fc_t", "fc_global", _AFFINE)
    yield from _named("fc", "fc", _AFFINE)
    yield from _backbone_names(BLOCKS[backbone])
    if aspp:
        pairs = {"im_pool.1": "pool", "conv_after.0": "project", **{f"aspp.{i}": f"branches.{i}" for i in range(4)}}
        for theirs, ours in pairs.items():
            yield from _named(f"localmodel.aspp.{theirs}", f"local.aspp.{ours}", _AFFINE)
    yield from _named("localmodel.conv1", "local.attention.conv", _AFFINE)
    yield from _named("localmodel.bn", "local.attention.norm", _NORM)
    yield from _named("localmodel.conv2", "local.attention.score", _AFFINE)


def _backbone_names(blocks: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    net = "backbone.net"
    yield "globalmodel.stem.conv.weight", f"{net}.conv1.weight"
    yield from _named("globalmodel.stem.bn", f"{net}.bn1", _NORM)
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            theirs, ours = f"globalmodel.s{stage}.b{block + 1}", f"{net}.layer{stage}.{block}"
            if block == 0:
                yield f"{theirs}.proj.weight", f"{ours}.downsample.0.weight"
                yield from _named(f"{theirs}.bn", f"{ours}.downsample.1", _NORM)
            for place, letter in enumerate("abc", start=1):
                yield f"{theirs}.f.{letter}.weight", f"{ours}.conv{place}.weight"
                yield from _named(f"{theirs}.f.{letter}_bn", f"{ours}.bn{place}", _NORM)


def _named(theirs: str, ours: str, tensors: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return ((f"{theirs}.{tensor}", f"{ours}.{tensor}") for tensor in tensors)


def _network_of(stored: Mapping[str, Tensor], name: str) -> str:
    """The smallest network with the third stage's blocks; of a checkpoint cut short, the keys then say so."""
    if not is_released(stored):
        raise UserError(f"{name} is no released DOLG checkpoint: it has no tensor globalmodel.s1.b1...")
    found = [re.match(r"globalmodel\.s3\.b(\d+)\.", key) for key in stored]
    blocks = max((int(match[1]) for match in found if match), default=0)
    for backbone, expected in BLOCKS.items():
        if blocks <= expected[2]:
            return backbone
    raise UserError(f"{name} has {blocks} blocks in its third stage: only R50 (6) and R101 (23) were released")


def _check_keys(stored: Mapping[str, Tensor], expected: set[str], name: str) -> None:
    missing, unknown = sorted(expected - stored.keys()), sorted(stored.keys() - expected)
    if missing or unknown:
        parts = [
            f"{len(keys)} {what} ({truncate_list(keys, 8)})"
            for keys, what in ((missing, "missing"), (unknown, "unknown"))
            if keys
        ]
        raise UserError(f"{name} does not hold the released network's tensors: {'; '.join(parts)}")


def _check_shapes(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> None:
    wrong = [key for key, value in expected.items() if stored[key].shape != value.shape]
    if wrong:
        raise UserError(f"{name} has tensors of another shape than the released network's: {truncate_list(wrong, 8)}")

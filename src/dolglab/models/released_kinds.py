"""Released networks of other projects by KIND:FILE: what a file cannot say itself, the kind does.

The files are published outside of the reach of the machines that this was written on: names and shapes are those of
the public code, and made-up weights in them were stepped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dolglab.contracts import ExtractionProtocol
from dolglab.errors import UserError
from dolglab.models.checkpoint import build_model
from dolglab.models.dolg import GlobalDescriptor
from dolglab.models.released_globals import FAMILIES, NOT_STATED, read_global
from dolglab.models.released_heads import read_released_head


@dataclass(frozen=True)
class HeadKind:
    """Released networks that end in a head of their own.

    Attributes:
        pooling: the head's class.
        layer: whether a layer follows.
        side: of the square that its authors bring images to; here the longer side is shrunk to it.
        licence: of the weights, as their repository states it.
    """

    pooling: str
    layer: bool
    side: int
    licence: str


HEADS: dict[str, HeadKind] = {
    "salad": HeadKind("SALAD", False, 322, "gpl-3.0"),
    "megaloc": HeadKind("SALAD", True, 322, NOT_STATED),
    "boq": HeadKind("BoQ", False, 384, "mit"),
    "mixvpr": HeadKind("MixVPR", False, 320, NOT_STATED),
}
KINDS = (*FAMILIES, *HEADS)


@dataclass(frozen=True)
class ReleasedNetwork:
    """A released network as this project has it: its configuration, its tensors, how its authors describe images."""

    config: dict[str, Any]
    model: dict[str, Tensor]
    protocol: ExtractionProtocol
    licence: str


def load_kind(kind: str, source: str) -> GlobalDescriptor:
    """The released network of a kind in a file, in eval mode, with its authors' `protocol`.

    Args:
        kind: one of `KINDS`.
        source: a path, `package:PACKAGE/FILE` or `hf://OWNER/NAME/FILE`.

    Raises UserError as `read_kind`.
    """
    found = read_kind(kind, source)
    model = build_model(found.config)
    assert isinstance(model, GlobalDescriptor)
    model.load_state_dict(found.model)
    note = f"{kind}:{Path(source).name}: {model.dim} numbers, licence {found.licence}"
    model.protocol = replace(found.protocol, note=note)
    model.side = found.protocol.max_side or model.side
    return model.eval()


def read_kind(kind: str, source: str) -> ReleasedNetwork:
    """A released network under this project's names.

    Raises UserError for no such file, code in it, another kind's network, tensors missing, unknown, of another shape
    or not finite.
    """
    if kind in FAMILIES:
        return ReleasedNetwork(*read_global(kind, source), FAMILIES[kind].protocol, FAMILIES[kind].licence)
    head, released = HEADS[kind], read_released_head(source)
    pooling = str(released.config["pooling"]["_target_"]).rpartition(".")[2]
    if (pooling, released.config["dim"] is not None) != (head.pooling, head.layer):
        raise UserError(f"{kind}:{source} holds another network: its head is {pooling}")
    backbone = {**released.config["backbone"], "licence": head.licence}
    config = {**released.config, "backbone": backbone}
    return ReleasedNetwork(config, released.model, ExtractionProtocol((1.0,), max_side=head.side), head.licence)

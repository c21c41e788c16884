"""Released networks of other projects, as KIND:FILE: the kind supplies what the file does not say.

None of the real files could be downloaded here: names and shapes are those of the public code, and tests use made-up
weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dolglab.contracts import ExtractionProtocol
from dolglab.models.checkpoint import build_model
from dolglab.models.dolg import GlobalDescriptor
from dolglab.models.released_globals import FAMILIES, read_global
from dolglab.models.released_heads import HEADS, read_head

KINDS = (*FAMILIES, *HEADS)


@dataclass(frozen=True)
class ReleasedNetwork:
    """A released network in this project's terms: configuration, tensors, and how its authors describe images."""

    config: dict[str, Any]
    model: dict[str, Tensor]
    protocol: ExtractionProtocol


def load_kind(kind: str, source: str) -> GlobalDescriptor:
    """The released network in a file, in eval mode, with its authors' `protocol`.

    Args:
        kind: one of `KINDS`.
        source: a path, `package:PACKAGE/FILE` or `hf://OWNER/NAME/FILE`.

    Raises UserError like `read_kind`.
    """
    found = read_kind(kind, source)
    model = build_model(found.config)
    assert isinstance(model, GlobalDescriptor)
    model.load_state_dict(found.model)
    note = f"{kind}:{Path(source).name}: {model.dim} numbers, licence {model.backbone.licence}"
    model.protocol = replace(found.protocol, note=note)
    model.side = found.protocol.max_side or model.side
    return model.eval()


def read_kind(kind: str, source: str) -> ReleasedNetwork:
    """A released network under this project's names.

    Raises UserError if the file does not exist, contains code or holds a network of another kind, and if tensors are
    missing, unknown, of another shape or not finite.
    """
    if kind in FAMILIES:
        return ReleasedNetwork(*read_global(kind, source), FAMILIES[kind].protocol)
    return ReleasedNetwork(*read_head(kind, source), HEADS[kind].protocol)

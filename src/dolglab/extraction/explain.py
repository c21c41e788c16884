"""What a cosine is made of: how much of it the global part of two descriptors gives, and how much the local one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dolglab.models.dolg import DOLG, DescriptorModel


class Parts(NamedTuple):
    """What a descriptor is the sum of before it is L2-normalised, (D,) each."""

    global_: Float[Tensor, " d"]
    local: Float[Tensor, " d"]
    bias: Float[Tensor, " d"]

    @property
    def whole(self) -> Float[Tensor, " d"]:
        """Their sum."""
        return self.global_ + self.local + self.bias


class Terms(NamedTuple):
    """What a cosine is the sum of: global with global, local with local, one with the other, and all with the bias."""

    global_: float
    local: float
    cross: float
    bias: float


def parts_of(model: DescriptorModel, image: Float[Tensor, "1 3 h w"]) -> Parts | None:
    """The parts of a normalised image's descriptor, float64; None where a fusion mixes them (Hadamard's product).

    The last layer is linear, so what it makes of f_g and of the local part are added up (Yang et al., ICCV 2021,
    section 3). A global-only network has no local part.
    """
    with torch.inference_mode():
        if not isinstance(model, DOLG):
            whole = model(image)[0].double()
            bias = torch.zeros_like(whole) if model.fc is None else model.fc.bias.double()
            return Parts(whole - bias, torch.zeros_like(whole), bias)
        fused, weight, bias = model.fused(image)[0].double(), model.fc.weight.double(), model.fc.bias.double()
        hidden = model.fc_global.out_features
        if len(fused) != 2 * hidden:
            return None
        return Parts(weight[:, :hidden] @ fused[:hidden], weight[:, hidden:] @ fused[hidden:], bias)


def similarity_terms(a: Parts, b: Parts) -> Terms:
    """The terms of the cosine of two descriptors."""
    norms = float(a.whole.norm() * b.whole.norm())
    values = (
        a.global_ @ b.global_,
        a.local @ b.local,
        a.global_ @ b.local + a.local @ b.global_,
        a.bias @ b.whole + (a.global_ + a.local) @ b.bias,
    )
    return Terms(*(float(value) / norms for value in values))

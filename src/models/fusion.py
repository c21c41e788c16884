"""Fusion of a map of local features with a global feature into one vector."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def orthogonal_fusion(local: Float[Tensor, "b c h w"], global_: Float[Tensor, "b c"]) -> Float[Tensor, "b c2"]:
    """`[f_g, mean over space of f_l minus its projection on f_g]`, (B, 2C), float32 (DOLG, equations 3 to 5).

    The projection is linear, so the mean of the orthogonal parts is the orthogonal part of the mean: the map is
    pooled first and no projection map is built. Where f_g is zero nothing is projected out.
    """
    with torch.autocast(local.device.type, enabled=False):
        global_ = global_.float()
        mean = local.float().mean((-2, -1))
        dot = (mean * global_).sum(-1, keepdim=True)
        norm = (global_ * global_).sum(-1, keepdim=True)
        tiny = torch.finfo(norm.dtype).tiny
        return torch.cat([global_, mean - dot / norm.clamp(min=tiny) * global_], dim=-1)


def concat_fusion(local: Float[Tensor, "b c h w"], global_: Float[Tensor, "b c"]) -> Float[Tensor, "b c2"]:
    """`[f_g, mean f_l]`, (B, 2C), float32: fusion without orthogonality."""
    return torch.cat([global_.float(), local.float().mean((-2, -1))], dim=-1)


def hadamard_fusion(local: Float[Tensor, "b c h w"], global_: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
    """`mean f_l * f_g`, element by element, (B, C), float32 (DOLG, ablation table 5)."""
    return local.float().mean((-2, -1)) * global_.float()

"""Fusion of a map of local features with a global feature into one vector."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dolglab.errors import UserError
from dolglab.models.pooling import gem


def orthogonal_fusion(
    local: Float[Tensor, "b c h w"], global_: Float[Tensor, "b c"], pool: str = "avg"
) -> Float[Tensor, "b c2"]:
    """`[f_g, pooled part of f_l that is orthogonal to f_g]`, (B, 2C), float32 (DOLG, equations 3 to 5).

    With average pooling, as in the paper, the map is pooled first, and no projection map is built: the projection is
    linear, so the mean of the orthogonal parts is the orthogonal part of the mean. If f_g is zero, nothing is projected
    out. Raises UserError for a `pool` other than "avg" and "gem" (GeM with p = 3, which needs the whole map).

    >>> local, global_ = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.tensor([[2.0, 0.0]])
    >>> orthogonal_fusion(local, global_)
    tensor([[2., 0., 0., 4.]])
    """
    with torch.autocast(local.device.type, enabled=False):
        global_ = global_.float()
        if pool == "avg":
            return torch.cat([global_, orthogonal_part(local.float().mean((-2, -1)), global_)], dim=-1)
        map_ = orthogonal_part(local.float().permute(0, 2, 3, 1), global_[:, None, None])
        return torch.cat([global_, _pooled(map_.permute(0, 3, 1, 2), pool)], dim=-1)


def orthogonal_part(local: Float[Tensor, "... c"], global_: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
    """Vectors without their projection on f_g."""
    dot = (local * global_).sum(-1, keepdim=True)
    norm = (global_ * global_).sum(-1, keepdim=True)
    return local - dot / norm.clamp(min=torch.finfo(norm.dtype).tiny) * global_


def concat_fusion(
    local: Float[Tensor, "b c h w"], global_: Float[Tensor, "b c"], pool: str = "avg"
) -> Float[Tensor, "b c2"]:
    """`[f_g, pooled f_l]`, (B, 2C), float32: fusion without orthogonality."""
    return torch.cat([global_.float(), _pooled(local, pool)], dim=-1)


def hadamard_fusion(
    local: Float[Tensor, "b c h w"], global_: Float[Tensor, "b c"], pool: str = "avg"
) -> Float[Tensor, "b c"]:
    """`pooled f_l * f_g`, element by element, (B, C), float32 (DOLG, ablation table 5)."""
    return _pooled(local, pool) * global_.float()


def _pooled(local: Float[Tensor, "b c h w"], pool: str) -> Float[Tensor, "b c"]:
    if pool == "avg":
        return local.float().mean((-2, -1))
    if pool == "gem":
        return gem(local, 3.0)
    raise UserError(f"fusion.pool must be avg or gem, not {pool}")

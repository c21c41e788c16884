"""Pooling of a feature map into a vector."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from src.contracts import InputError


def gem(features: Float[Tensor, "b c h w"], p: Float[Tensor, " n"] | float, eps: float = 1e-6) -> Float[Tensor, "b c"]:
    """Generalised mean over space, in float32: (mean max(x, eps)^p)^(1/p) (Radenovic et al., 2018, eq. 3).

    Divided by each channel's maximum before the power, so that no p overflows; GeM is homogeneous, which
    makes the maximum a constant for the gradient.
    """
    with torch.autocast(features.device.type, enabled=False):
        x = features.float().clamp(min=eps)
        peak = x.detach().amax((-2, -1), keepdim=True)
        power = p.float().view(-1, 1, 1) if isinstance(p, Tensor) else p
        mean = ((x / peak) ** power).mean((-2, -1))
        root = 1 / p.float() if isinstance(p, Tensor) else 1 / p
        return peak[..., 0, 0] * mean**root


class GeM(nn.Module):
    """Generalised-mean pooling with a fixed or learnable exponent (DOLG, section 3.2).

    Args:
        channels: channels of the map.
        p: exponent; 1 is average pooling, large values tend to max pooling.
        learnable: learn p together with the network.
        per_channel: one exponent a channel, not one for all.
        eps: floor of the activations.

    Raises:
        InputError: p or eps not above zero.
    """

    def __init__(
        self,
        channels: int,
        p: float = 3.0,
        learnable: bool = True,
        per_channel: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if p <= 0 or eps <= 0:
            raise InputError(f"GeM needs p > 0 and eps > 0, not p={p}, eps={eps}")
        self.eps = eps
        self.p = nn.Parameter(torch.full((channels if per_channel else 1,), float(p)), requires_grad=learnable)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        """A map to a vector, float32."""
        return gem(features, self.p, self.eps)

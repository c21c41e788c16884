"""Pooling of a feature map into a vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dolglab.errors import UserError


def gem(features: Float[Tensor, "b c h w"], p: Float[Tensor, " n"] | float, eps: float = 1e-6) -> Float[Tensor, "b c"]:
    """Generalised mean over space, in float32: (mean max(x, eps)^p)^(1/p) (Radenovic et al., 2018, eq. 3).

    Features are divided by each channel's maximum before the power, so that no p overflows. GeM is homogeneous, so the
    maximum is a constant for the gradient.

    >>> gem(torch.tensor([[[[0.0, 2.0]], [[1.0, 3.0]]]]), p=1.0)
    tensor([[1.0000, 2.0000]])
    >>> gem(torch.tensor([[[[0.0, 2.0]], [[1.0, 3.0]]]]), p=100.0).round(decimals=1)
    tensor([[2., 3.]])
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
        per_channel: learn one exponent per channel instead of one for all.
        eps: floor of the activations.

    Raises UserError for p or eps not above zero.
    """

    def __init__(
        self, channels: int, p: float = 3.0, learnable: bool = True, per_channel: bool = False, eps: float = 1e-6
    ) -> None:
        super().__init__()
        if p <= 0 or eps <= 0:
            raise UserError(f"GeM needs p > 0 and eps > 0, not p={p}, eps={eps}")
        self.eps = eps
        self.p = nn.Parameter(torch.full((channels if per_channel else 1,), float(p)), requires_grad=learnable)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        """Pool a map to a vector, float32."""
        return gem(features, self.p, self.eps)


def regional_gem(
    features: Float[Tensor, "b c h w"], p: float = 2.5, window: int = 5, eps: float = 1e-6
) -> Float[Tensor, "b c h w"]:
    """The mean of a map and of its generalised means over windows, float32 (Shao et al., ICCV 2023, SuperGlobal).

    Each window has a power mean, with stride 1 and the map mirrored at its edges. Values below `eps` count as `eps`:
    the public code assumes maps without negative values.
    """
    with torch.autocast(features.device.type, enabled=False):
        x = features.float()
        padded = F.pad(x.clamp(min=eps), (window // 2,) * 4, mode="reflect")
        return 0.5 * x + 0.5 * F.avg_pool2d(padded**p, window, stride=1) ** (1 / p)


class RegionalGeM(GeM):
    """Regional GeM, then GeM over the whole map (Shao et al., ICCV 2023, SuperGlobal).

    Args:
        channels: channels of the map.
        p: exponent over the map, GeM+ in the paper.
        learnable: learn p together with the network.
        eps: floor of the activations.
        region_p: exponent over a window.
        window: side of a window in cells, an odd number.

    Raises UserError for an exponent not above zero, an even window and, in `forward`, a map that is too small for it.
    """

    def __init__(
        self,
        channels: int,
        p: float = 4.6,
        learnable: bool = False,
        eps: float = 1e-8,
        region_p: float = 2.5,
        window: int = 5,
    ) -> None:
        super().__init__(channels, p, learnable, eps=eps)
        if region_p <= 0 or window < 1 or window % 2 == 0:
            raise UserError(f"pooling.region_p must be above 0 and .window odd, not {region_p} and {window}")
        self.region_p = region_p
        self.window = window

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        """Pool a map to a vector, float32."""
        height, width = features.shape[-2:]
        # Not during compilation, where sides are symbols.
        if not torch.compiler.is_compiling() and min(height, width) <= self.window // 2:
            raise UserError(
                f"regional GeM mirrors {self.window // 2} cells at the edges of a map, and this map has {height} x "
                f"{width}: use larger images or a smaller pooling.window"
            )
        return super().forward(regional_gem(features, self.region_p, self.window, self.eps))


class UnitGeM(GeM):
    """GeM of cells that are L2-normalised over their channels first (Berton et al., CVPR 2022, CosPlace)."""

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        """Pool a map to a vector, float32."""
        return super().forward(F.normalize(features.float(), dim=1))


class AvgPool(nn.Module):
    """The mean over space."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        """Pool a map to a vector, float32."""
        return features.float().mean((-2, -1))


class MaxPool(nn.Module):
    """The maximum over space (MAC)."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        """Pool a map to a vector, float32."""
        return features.float().amax((-2, -1))


class RMAC(nn.Module):
    """The sum of L2-normalised maxima over square regions at several scales (Tolias et al., ICLR 2016).

    Args:
        channels: channels of the map.
        levels: number of levels; at level l the side of a region is 2 min(h, w) / (l + 1), and regions overlap by
            about 40 %.
    """

    not_exportable = "the regions of R-MAC depend on the size of the image"

    def __init__(self, channels: int, levels: int = 3) -> None:
        super().__init__()
        if levels < 1:
            raise UserError(f"R-MAC needs at least one level, not {levels}")
        self.levels = levels

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        """Pool a map to a vector, float32."""
        x = features.float()
        regions = [x.amax((-2, -1))]
        for top, left, side in rmac_regions(x.shape[-2], x.shape[-1], self.levels):
            regions.append(x[..., top : top + side, left : left + side].amax((-2, -1)))
        return torch.stack([F.normalize(region) for region in regions]).sum(0)


def rmac_regions(height: int, width: int, levels: int) -> list[tuple[int, int, int]]:
    """Top, left and side of every region of every level, in cells of a map.

    >>> rmac_regions(4, 6, levels=2)
    [(0, 0, 4), (0, 2, 4), (0, 0, 2), (0, 2, 2), (0, 4, 2), (2, 0, 2), (2, 2, 2), (2, 4, 2)]
    """
    shorter, longer = min(height, width), max(height, width)
    # Along the longer side, the number of additional regions that brings the overlap of the largest closest to 40 %.
    overlaps = [1 - (longer - shorter) / (shorter * steps) for steps in range(1, 7)]
    extra = 0 if longer == shorter else 1 + min(range(6), key=lambda i: abs(overlaps[i] - 0.4))
    found = []
    for level in range(1, levels + 1):
        side = max(1, int(2 * shorter / (level + 1)))
        rows = level + (extra if height > width else 0)
        columns = level + (extra if width > height else 0)
        found += [(top, left, side) for top in _starts(height, side, rows) for left in _starts(width, side, columns)]
    return found


def _starts(length: int, side: int, count: int) -> list[int]:
    """`count` evenly spread starts of spans of `side` within `length`."""
    if count == 1:
        return [(length - side) // 2]
    return [round((length - side) * i / (count - 1)) for i in range(count)]

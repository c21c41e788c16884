"""The local branch: multi-scale context from dilated convolutions, then self-attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dolglab.errors import UserError

# If a smaller share of the taps than this meets the map, one tap at a time is faster than a dilated convolution.
SPARSE = 0.3


class DilatedConv(nn.Conv2d):
    """A 3x3 convolution with padding equal to its dilation, which on small maps skips taps outside the map.

    A tap whose offset reaches beyond the map reads only padding, which adds zero: leaving it out is exact.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        """Convolve a map; the result has the same size."""
        height, width = input.shape[-2:]
        spans = [_spans(side, self.dilation[0]) for side in (height, width)]
        rows, columns = ([target.stop - target.start for _, target in side] for side in spans)
        if sum(rows) * sum(columns) >= SPARSE * 9 * height * width:
            return super().forward(input)
        out = F.conv2d(input, self.weight[:, :, 1:2, 1:2], self.bias)
        for i, (above, below) in enumerate(spans[0]):
            for j, (left, right) in enumerate(spans[1]):
                if (i, j) != (1, 1) and rows[i] and columns[j]:
                    part = F.conv2d(input[..., above, left], self.weight[:, :, i : i + 1, j : j + 1])
                    out[..., below, right] += part
        return out


def _spans(side: int, dilation: int) -> list[tuple[slice, slice]]:
    """Along one side, for each of the three taps: the cells it reads, and the cells it contributes to."""
    reach = max(0, side - dilation)
    return [
        (slice(0, reach), slice(side - reach, side)),
        (slice(0, side), slice(0, side)),
        (slice(side - reach, side), slice(0, reach)),
    ]


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: dilated 3x3 convolutions and global average pooling (DOLG, figure 3).

    Args:
        in_channels: channels of the map.
        out_channels: channels of the result; each branch has half as many.
        dilations: dilations of the 3x3 convolutions, one convolution each.
        pointwise: add a 1x1 branch, as in the released code.
    """

    def __init__(
        self, in_channels: int, out_channels: int, dilations: Sequence[int] = (6, 12, 18), pointwise: bool = False
    ) -> None:
        super().__init__()
        if not dilations or min(dilations) < 1:
            raise UserError(f"ASPP needs dilations of at least 1, not {list(dilations)}")
        width = max(out_channels // 2, 1)
        self.pool = nn.Conv2d(in_channels, width, 1)
        self.branches = nn.ModuleList([nn.Conv2d(in_channels, width, 1)] if pointwise else [])
        self.branches.extend(DilatedConv(in_channels, width, d) for d in dilations)
        self.project = nn.Conv2d(width * (1 + len(self.branches)), out_channels, 1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        """Compute a map of the same size, after a ReLU."""
        pooled = F.relu(self.pool(features.mean((-2, -1), keepdim=True)))
        # Each branch is projected separately and added: no concatenated map is stored, and the pooled branch, which is
        # the same at every position, is projected once.
        first, *shares = self.project.weight.split(pooled.shape[1], dim=1)
        total = F.conv2d(pooled, first, self.project.bias)
        for branch, share in zip(self.branches, shares, strict=True):
            total = total + F.conv2d(branch(features), share)
        return F.relu(total)


class SelfAttention(nn.Module):
    """L2-normalised features, each with an attention score (DOLG, figure 3)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.score = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c2 h w"], Float[Tensor, "b 1 h w"]]:
        """Compute a map's normalised features and their scores (above 0, by a softplus)."""
        x = self.norm(self.conv(features))
        return F.normalize(x, dim=1), F.softplus(self.score(F.relu(x)))


class LocalBranch(nn.Module):
    """ASPP and self-attention: computes the map f_l for the fusion.

    Args:
        in_channels: channels of the backbone's local map.
        out_channels: channels of f_l, as many as the global feature f_g has.
        aspp: multi-scale context before the attention; the released yaml trains without it.
        attention: weight normalised features by their scores; without it f_l is the map itself.
        dilations: see `ASPP`.
        pointwise: see `ASPP`.

    Attributes:
        min_map: side in cells of the smallest map on which every outer tap reads a cell of the map.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        aspp: bool = True,
        attention: bool = True,
        dilations: Sequence[int] = (6, 12, 18),
        pointwise: bool = False,
    ) -> None:
        super().__init__()
        self.min_map = 1 + max(dilations) if aspp else 1
        self.aspp = ASPP(in_channels, out_channels, dilations, pointwise) if aspp else None
        channels = out_channels if aspp else in_channels
        self.attention = SelfAttention(channels, out_channels) if attention else None
        self.project = nn.Conv2d(channels, out_channels, 1) if not (aspp or attention) else None

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        """Compute local features from a backbone map: score times normalised feature at every position."""
        normalised, score = self.attend(features)
        return normalised if score is None else score * normalised

    def attend(
        self, features: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b c2 h w"], Float[Tensor, "b 1 h w"] | None]:
        """Normalised features and their attention scores, separately; without attention, the map and no scores."""
        x = features if self.aspp is None else self.aspp(features)
        if self.attention is not None:
            return self.attention(x)
        return (x if self.project is None else self.project(x)), None

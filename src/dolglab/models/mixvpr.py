"""MixVPR: perceptrons that mix the positions of a map, channel by channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dolglab.errors import UserError


class MixerLayer(nn.Module):
    """x + W2 ReLU(W1 LayerNorm(x)) along the positions of each channel (Ali-bey et al., WACV 2023, equation 2)."""

    def __init__(self, places: int, hidden: int) -> None:
        super().__init__()
        first, second = nn.Linear(places, hidden), nn.Linear(hidden, places)
        for layer in (first, second):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.mix = nn.Sequential(nn.LayerNorm(places), first, nn.ReLU(), second)

    def forward(self, x: Float[Tensor, "b c n"]) -> Float[Tensor, "b c n"]:
        """Mix the positions of each channel."""
        return x + self.mix(x)


class MixVPR(nn.Module):
    """Mixed positions, projected to `dim_channels` x `rows` (Ali-bey et al., WACV 2023), L2-normalised.

    Its weights belong to positions, so maps and images must have one size.

    Args:
        channels: channels of the map.
        map_size: height and width of the map, in cells; in the paper 20 x 20, for 320 pixels at stride 16.
        resize: resize maps of other sizes to `map_size` (bilinear), so that images of any shape are accepted, which the
            paper does not do; otherwise they are refused.
        dim_channels: channels of the descriptor.
        rows: rows of the descriptor.
        depth: number of mixer layers.
        ratio: width of a mixer layer between its two products, relative to the number of positions.

    Attributes:
        dim: length of the vector.
        trial_map: the only map size, in cells, that it accepts; None if it accepts any.
        not_exportable: why it cannot be exported to ONNX, which takes images of any size; None if it can.

    Raises UserError for a size below 1 and, in `forward`, for a map of another size.
    """

    def __init__(
        self,
        channels: int,
        map_size: Sequence[int] = (20, 20),
        resize: bool = False,
        dim_channels: int = 1024,
        rows: int = 4,
        depth: int = 4,
        ratio: float = 1.0,
    ) -> None:
        super().__init__()
        height, width = self.map_size = (int(map_size[0]), int(map_size[1]))
        places, hidden = height * width, int(height * width * ratio)
        if min(height, width, hidden, dim_channels, rows, depth) < 1:
            raise UserError(
                "pooling.map_size, .dim_channels, .rows, .depth and .ratio must be at least 1 position each"
            )
        self.resize = resize
        self.trial_map = None if resize else self.map_size
        self.not_exportable = None if resize else "without pooling.resize=true, MixVPR takes images of one size only"
        self.dim = dim_channels * rows
        self.mix = nn.Sequential(*(MixerLayer(places, hidden) for _ in range(depth)))
        self.channel_proj = nn.Linear(channels, dim_channels)
        self.row_proj = nn.Linear(places, rows)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Pool a map to a vector, float32."""
        if self.resize:
            features = F.interpolate(features, self.map_size, mode="bilinear", align_corners=False)
        height, width = features.shape[-2:]
        if (height, width) != self.map_size:
            raise UserError(
                f"MixVPR takes maps of {self.map_size[0]} x {self.map_size[1]} cells, but these images have maps of "
                f"{height} x {width}: set data.image_size to as many strides, pooling.map_size=[{height},{width}], "
                "or pooling.resize=true for images of any shape"
            )
        mixed = self.channel_proj(self.mix(features.flatten(2)).mT)
        return F.normalize(self.row_proj(mixed.mT).flatten(1).float())

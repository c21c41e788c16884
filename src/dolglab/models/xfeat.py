"""XFeat's network: local features, their positions and their reliability (Potje et al., CVPR 2024)."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dolglab.models.weights import check_fit, read_pickle, tensors_of

# The side in pixels of a cell of the maps.
CELL = 8
# The layers of the released weights that only semi-dense matching uses.
UNUSED = "fine_matcher."


class ConvLayer(nn.Module):
    """A convolution that keeps the size (except for its stride), batch norm without parameters, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
            nn.ReLU(),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return self.layer(x)


class XFeatNetwork(nn.Module):
    """Computes maps with cells of 8 pixels from grey images; its parameters have the names of the released weights."""

    def __init__(self) -> None:
        super().__init__()
        self.skip1 = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 24, 1))
        self.block1 = nn.Sequential(
            ConvLayer(1, 4), ConvLayer(4, 8, stride=2), ConvLayer(8, 8), ConvLayer(8, 24, stride=2)
        )
        self.block2 = nn.Sequential(ConvLayer(24, 24), ConvLayer(24, 24))
        self.block3 = nn.Sequential(ConvLayer(24, 64, stride=2), ConvLayer(64, 64), ConvLayer(64, 64, kernel=1))
        self.block4 = nn.Sequential(ConvLayer(64, 64, stride=2), ConvLayer(64, 64), ConvLayer(64, 64))
        self.block5 = nn.Sequential(
            ConvLayer(64, 128, stride=2), ConvLayer(128, 128), ConvLayer(128, 128), ConvLayer(128, 64, kernel=1)
        )
        self.block_fusion = nn.Sequential(ConvLayer(64, 64), ConvLayer(64, 64), nn.Conv2d(64, 64, 1))
        self.heatmap_head = nn.Sequential(ConvLayer(64, 64, kernel=1), ConvLayer(64, 64, kernel=1), nn.Conv2d(64, 1, 1))
        self.keypoint_head = nn.Sequential(*(ConvLayer(64, 64, kernel=1) for _ in range(3)), nn.Conv2d(64, 65, 1))

    def forward(
        self, grey: Float[Tensor, "b 1 h w"]
    ) -> tuple[Float[Tensor, "b 64 h8 w8"], Float[Tensor, "b 65 h8 w8"], Float[Tensor, "b 1 h8 w8"]]:
        """Describe images with any range of values, whose sides are multiples of 32.

        Returns:
            features, not normalised; for each cell the keypoint logits of its 64 pixels, row by row, and the logit of
            no keypoint; the logit of the reliability of its features.
        """
        variance, mean = torch.var_mean(grey, (-2, -1), correction=0, keepdim=True)
        x = (grey - mean) / (variance + 1e-5).sqrt()
        eighth = self.block3(self.block2(self.block1(x) + self.skip1(x)))
        sixteenth = self.block4(eighth)
        levels = eighth, _upsampled(sixteenth, 2), _upsampled(self.block5(sixteenth), 4)
        features = self.block_fusion(levels[0] + levels[1] + levels[2])
        return features, self.keypoint_head(F.pixel_unshuffle(x, CELL)), self.heatmap_head(features)


def _upsampled(x: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h2 w2"]:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def read_xfeat(path: Path) -> XFeatNetwork:
    """The network with the weights of a file, in eval mode. Raises UserError for a file with other tensors."""
    network = XFeatNetwork()
    tensors = tensors_of(read_pickle(path, path), path)
    own = {key: value for key, value in tensors.items() if not key.startswith(UNUSED)}
    check_fit(network.state_dict(), own, path)
    network.load_state_dict(own)
    return network.eval()

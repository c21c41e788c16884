"""A network as one graph that ONNX can hold, with batch, height and width left open."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from src.contracts import InputError
from src.extraction.folding import for_inference
from src.models.dolg import DescriptorModel
from src.models.local import DilatedConv
from src.models.pooling import RMAC


class Describing(nn.Module):
    """Images to L2-normalised descriptors, in layers whose work does not depend on the image's size.

    Args:
        network: stays as it is.
        normalised: whether images come normalised; otherwise as RGB in 0..255.

    Raises InputError for a network of which that cannot be had.
    """

    def __init__(self, network: DescriptorModel, normalised: bool = False) -> None:
        super().__init__()
        check_exportable(network)
        self.normalised = normalised
        self.network = copy.deepcopy(for_inference(network))
        _make_plain(self.network)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) float32 to (b, dim) float32."""
        return F.normalize(self.network(images if self.normalised else self.network.backbone.normalise(images)))


class SameConv(nn.Conv2d):
    """TensorFlow's padding as ONNX has it: worked out in Python it makes formulas of height and width that explode.

    It computes nothing outside of an export.
    """

    def forward(self, input: Tensor) -> Tensor:
        batch, _, height, width = input.shape
        down, right = self.stride
        return torch.onnx.ops.symbolic(
            "Conv",
            [input, self.weight, *([] if self.bias is None else [self.bias])],
            {
                "auto_pad": "SAME_UPPER",
                "strides": list(self.stride),
                "dilations": list(self.dilation),
                "group": self.groups,
                "kernel_shape": list(self.kernel_size),
            },
            dtype=input.dtype,
            shape=(batch, self.out_channels, (height + down - 1) // down, (width + right - 1) // right),
        )


def check_exportable(network: DescriptorModel) -> None:
    """Raise InputError for a network whose layers follow from the image's size."""
    if any(isinstance(module, RMAC) for module in network.modules()):
        raise InputError("R-MAC takes other regions for each size of image: ONNX cannot hold it")
    if network.backbone.name.startswith("swin"):
        raise InputError(f"{network.backbone.name} cuts each size of image into other windows: ONNX cannot hold it")


def _make_plain(module: nn.Module) -> None:
    """Put layers that give the same in place of those that look at the size of their input."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and isinstance(child, Conv2dSame):
            setattr(module, name, _as(SameConv, child))
        elif isinstance(child, DilatedConv):
            setattr(module, name, _as(nn.Conv2d, child))
        else:
            _make_plain(child)


def _as(kind: type[nn.Conv2d], conv: nn.Conv2d) -> nn.Conv2d:
    made = kind(conv.in_channels, conv.out_channels, 1, groups=conv.groups, bias=conv.bias is not None)
    made.kernel_size, made.stride, made.padding, made.dilation = (
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
    )
    made.weight, made.bias = conv.weight, conv.bias
    return made.eval()

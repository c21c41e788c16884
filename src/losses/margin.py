"""Prediction heads over L2-normalised descriptors and class centres, with a margin on the target's cosine."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from src.contracts import InputError

# Below this sine (squared) the margin's gradient is cut, so that it stays finite at cosine +1 and -1.
SINE_FLOOR = 1e-7


def arcface_cosine(cosine: Float[Tensor, "*b"], margin: float) -> Float[Tensor, "*b"]:
    """cos(theta + margin) of target cosines (Deng et al., CVPR 2019, equation 3)."""
    sine = (1 - cosine * cosine).clamp(min=SINE_FLOOR).sqrt()
    return cosine * math.cos(margin) - sine * math.sin(margin)


def cosface_cosine(cosine: Float[Tensor, "*b"], margin: float) -> Float[Tensor, "*b"]:
    """cos(theta) - margin of target cosines (Wang et al., CVPR 2018, equation 4)."""
    return cosine - margin


class MarginHead(nn.Module):
    """The interface of all heads: `cosine` once, then `logits` with the margin on the targets.

    Args:
        dim: length of the descriptors.
        num_classes: classes; one centre each.
        margin: in radians (ArcFace) or in cosine (CosFace).
        scale: multiplies the cosines.

    Raises:
        InputError: a size, margin or scale that makes no sense.
    """

    def __init__(self, dim: int, num_classes: int, margin: float = 0.15, scale: float = 30.0) -> None:
        super().__init__()
        if dim < 1 or num_classes < 2:
            raise InputError(f"a margin head needs dim >= 1 and at least 2 classes, not {dim} and {num_classes}")
        if not 0 <= margin < math.pi or scale <= 0:
            raise InputError(f"margin must be in [0, pi) and scale above 0, not {margin} and {scale}")
        self.margin = margin
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        nn.init.normal_(self.weight, std=dim**-0.5)

    def forward(self, descriptors: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b n"]:
        """Descriptors and labels to logits, float32."""
        return self.logits(self.cosine(descriptors), labels)

    def cosine(self, descriptors: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """Cosines of descriptors and class centres, float32 whatever the autocast."""
        with torch.autocast(descriptors.device.type, enabled=False):
            return F.linear(F.normalize(descriptors.float()), F.normalize(self.weight.float()))

    def logits(self, cosine: Float[Tensor, "b n"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b n"]:
        """Scaled cosines with the margin on the targets."""
        index = labels.view(-1, 1)
        target = self.target_cosine(cosine.gather(1, index))
        return self.scale * cosine.scatter(1, index, target)

    def target_cosine(self, cosine: Float[Tensor, "b 1"]) -> Float[Tensor, "b 1"]:
        """The target's cosine after the margin."""
        raise NotImplementedError


class ArcFace(MarginHead):
    """Additive angular margin: cos(theta + m) (Deng et al., CVPR 2019); DOLG takes m = 0.15, s = 30."""

    def target_cosine(self, cosine: Float[Tensor, "b 1"]) -> Float[Tensor, "b 1"]:
        """See `arcface_cosine`."""
        return arcface_cosine(cosine, self.margin)


class CosFace(MarginHead):
    """Additive cosine margin: cos(theta) - m (Wang et al., CVPR 2018)."""

    def target_cosine(self, cosine: Float[Tensor, "b 1"]) -> Float[Tensor, "b 1"]:
        """See `cosface_cosine`."""
        return cosface_cosine(cosine, self.margin)

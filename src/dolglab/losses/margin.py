"""Prediction heads over L2-normalised descriptors and class centres, with a margin on the target's cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dolglab.errors import UserError

# Squared sines are clamped to this value, so that the margin's gradient stays finite at cosine +1 and -1.
SINE_FLOOR = 1e-7


def arcface_cosine(cosine: Float[Tensor, "*b"], margin: Float[Tensor, "*b"] | float) -> Float[Tensor, "*b"]:
    """cos(theta + margin) of target cosines, for every theta (Deng et al., CVPR 2019, equation 3).

    For theta above pi - margin, the value rises again with theta (see `monotone_arcface_cosine`).

    >>> arcface_cosine(torch.tensor([0.5, 0.0]), math.pi / 6)
    tensor([ 0.0000, -0.5000])
    """
    sine = (1 - cosine * cosine).clamp(min=SINE_FLOOR).sqrt()
    m = torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)
    return cosine * m.cos() - sine * m.sin()


def cosface_cosine(cosine: Float[Tensor, "*b"], margin: float) -> Float[Tensor, "*b"]:
    """cos(theta) - margin of target cosines (Wang et al., CVPR 2018, equation 4).

    >>> cosface_cosine(torch.tensor([0.5]), 0.25)
    tensor([0.2500])
    """
    return cosine - margin


def monotone_arcface_cosine(cosine: Float[Tensor, "*b"], margin: Float[Tensor, "*b"] | float) -> Float[Tensor, "*b"]:
    """`arcface_cosine` while theta + margin is below pi; above, cos(theta) - margin sin(margin), which keeps falling
    (as in the public ArcFace code, which the released DOLG head follows).

    >>> monotone_arcface_cosine(torch.tensor([0.5, -1.0]), math.pi / 6)
    tensor([ 0.0000, -1.2618])
    """
    m = torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)
    return torch.where(cosine <= -m.cos(), cosine - m * m.sin(), arcface_cosine(cosine, margin))


def curricular_cosine(
    cosine: Float[Tensor, "b n"], target: Float[Tensor, "b 1"], mean: Float[Tensor, " 1"]
) -> Float[Tensor, "b n"]:
    """Negatives harder than the target after its margin, c (t + c) instead of c (Huang et al., CVPR 2020, eq. 8)."""
    return torch.where(cosine > target, cosine * (mean + cosine), cosine)


def dynamic_margins(class_sizes: Float[Tensor, " n"], low: float, high: float, power: float) -> Float[Tensor, " n"]:
    """A margin for each class, from `high` for the smallest to `low` for the largest, linear in size^-power.

    >>> dynamic_margins(torch.tensor([1.0, 16.0, 81.0]), low=0.1, high=0.5, power=0.25)
    tensor([0.5000, 0.2000, 0.1000])
    """
    decay = class_sizes.clamp(min=1) ** -power
    smallest, largest = decay.min(), decay.max()
    return low + (high - low) * (decay - smallest) / (largest - smallest).clamp(min=1e-12)


@dataclass(frozen=True)
class HeadLoss:
    """A batch's loss, with gradient; the share of targets with the highest cosine; mean cosines before the margin.

    `cosine` holds all cosines, before the margin and without gradient. `at` is the column of each target, or -1 if
    another process has its class.
    """

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    target_cosine: Float[Tensor, ""]
    nontarget_cosine: Float[Tensor, ""]
    cosine: Float[Tensor, "b c"]
    at: Int[Tensor, " b"]


class MarginHead(nn.Module):
    """The interface of all heads: `cosine` once, then `logits` with the margin on the targets.

    Args:
        dim: length of the descriptors.
        num_classes: number of classes; each has one centre.
        margin: in radians (ArcFace and its variants) or as a cosine (CosFace).
        scale: the factor on the cosines.

    A head with an argument `class_sizes` receives the number of training images of each class, (num_classes,).

    Attributes:
        shardable: whether `class_parallel=true` may divide the classes among processes: a target's logit depends on
            its own cosine alone, and `negatives` does not change the others.

    Raises UserError for an invalid size, margin or scale.
    """

    shardable = False
    # Rows of the weight that belong to each class.
    centres = 1

    def __init__(self, dim: int, num_classes: int, margin: float = 0.15, scale: float = 30.0) -> None:
        super().__init__()
        if dim < 1 or num_classes < 2:
            raise UserError(f"a margin head needs dim >= 1 and at least 2 classes, not {dim} and {num_classes}")
        if not 0 <= margin < math.pi or scale <= 0:
            raise UserError(f"margin must be in [0, pi) and scale above 0, not {margin} and {scale}")
        self.num_classes = num_classes
        self.margin = margin
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes * self.centres, dim))
        nn.init.normal_(self.weight, std=dim**-0.5)

    def forward(self, descriptors: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b n"]:
        """Compute logits from descriptors and labels, float32."""
        return self.logits(self.cosine(descriptors), labels)

    def loss(self, descriptors: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> HeadLoss:
        """The mean cross-entropy of the logits, and statistics of the cosines for the log."""
        cosine = self.cosine(descriptors)
        value = F.cross_entropy(self.logits(cosine, labels), labels)
        cosine = cosine.detach()
        target = cosine.gather(1, labels.view(-1, 1))
        return HeadLoss(
            loss=value,
            accuracy=(cosine.argmax(1) == labels).float().mean(),
            target_cosine=target.mean(),
            nontarget_cosine=(cosine.sum() - target.sum()) / (cosine.numel() - len(labels)),
            cosine=cosine,
            at=labels,
        )

    def cosine(
        self, descriptors: Float[Tensor, "b d"], weight: Float[Tensor, "r d"] | None = None
    ) -> Float[Tensor, "b n"]:
        """Cosines of descriptors and class centres (by default all), float32 even under autocast."""
        centres = self.weight if weight is None else weight
        with torch.autocast(descriptors.device.type, enabled=False):
            return F.linear(F.normalize(descriptors.float()), F.normalize(centres.float()))

    def logits(self, cosine: Float[Tensor, "b n"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b n"]:
        """Scaled cosines with the margin on the targets."""
        index = labels.view(-1, 1)
        before = cosine.gather(1, index)
        target = self.target_cosine(before, labels)
        return self.scale * self.negatives(cosine, before).scatter(1, index, target)

    def target_cosine(self, cosine: Float[Tensor, "b 1"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b 1"]:
        """The target's cosine after the margin."""
        raise NotImplementedError

    def negatives(self, cosine: Float[Tensor, "b n"], target: Float[Tensor, "b 1"]) -> Float[Tensor, "b n"]:
        """The cosines of all classes; the targets' are replaced afterwards. `target` is before the margin."""
        return cosine


class Softmax(MarginHead):
    """No margin: the softmax of scaled cosines, the baseline for the margins."""

    shardable = True

    def __init__(self, dim: int, num_classes: int, scale: float = 30.0) -> None:
        super().__init__(dim, num_classes, 0.0, scale)

    def target_cosine(self, cosine: Float[Tensor, "b 1"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b 1"]:
        return cosine


class ArcFace(MarginHead):
    """Additive angular margin: cos(theta + m) (Deng et al., CVPR 2019); DOLG uses m = 0.15, s = 30.

    Args:
        monotone: for theta above pi - m, the paper's value rises again and its gradient pushes the target further away.
            True uses `monotone_arcface_cosine` there, as the public code does; False keeps the paper's equation. Such
            targets are rare: with m = 0.15 their cosine is below -0.989.
    """

    shardable = True

    def __init__(
        self, dim: int, num_classes: int, margin: float = 0.15, scale: float = 30.0, monotone: bool = False
    ) -> None:
        super().__init__(dim, num_classes, margin, scale)
        self.widened = monotone_arcface_cosine if monotone else arcface_cosine

    def target_cosine(self, cosine: Float[Tensor, "b 1"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b 1"]:
        return self.widened(cosine, self.margin)


class CosFace(MarginHead):
    """Additive cosine margin: cos(theta) - m (Wang et al., CVPR 2018)."""

    shardable = True

    def target_cosine(self, cosine: Float[Tensor, "b 1"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b 1"]:
        return cosface_cosine(cosine, self.margin)


class CurricularFace(MarginHead):
    """The head of the released code: ArcFace whose hard negatives gain weight during training.

    A negative harder than its target (after the margin) is weighted by t + cos, where t is the running mean of the
    targets' cosines (Huang et al., CVPR 2020). The released code calls it Arcface.

    Args:
        momentum: of the running mean.
    """

    mean_cosine: Tensor

    def __init__(
        self, dim: int, num_classes: int, margin: float = 0.15, scale: float = 30.0, momentum: float = 0.01
    ) -> None:
        super().__init__(dim, num_classes, margin, scale)
        if not 0 < momentum <= 1:
            raise UserError(f"margin.momentum must be above 0 and at most 1, not {momentum}")
        self.momentum = momentum
        self.register_buffer("mean_cosine", torch.zeros(1))

    def target_cosine(self, cosine: Float[Tensor, "b 1"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b 1"]:
        """See `monotone_arcface_cosine`; in train mode the cosines before the margin update the running mean."""
        if self.training:
            self.mean_cosine.lerp_(cosine.detach().mean().view(1), self.momentum)
        return monotone_arcface_cosine(cosine, self.margin)

    def negatives(self, cosine: Float[Tensor, "b n"], target: Float[Tensor, "b 1"]) -> Float[Tensor, "b n"]:
        return curricular_cosine(cosine, arcface_cosine(target, self.margin), self.mean_cosine.clone())


class SubCenterArcFace(ArcFace):
    """ArcFace with several centres per class, of which the nearest counts: noisy images get their own centre.

    Deng et al., ECCV 2020.

    Args:
        centres: number of centres of each class.
        monotone: as for ArcFace.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        margin: float = 0.15,
        scale: float = 30.0,
        centres: int = 3,
        monotone: bool = False,
    ) -> None:
        if centres < 1:
            raise UserError(f"margin.centres must be at least 1, not {centres}")
        self.centres = centres
        super().__init__(dim, num_classes, margin, scale, monotone)

    def cosine(
        self, descriptors: Float[Tensor, "b d"], weight: Float[Tensor, "r d"] | None = None
    ) -> Float[Tensor, "b n"]:
        """Cosines of descriptors and the nearest centre of each class."""
        return super().cosine(descriptors, weight).unflatten(1, (-1, self.centres)).amax(2)


class DynamicArcFace(ArcFace):
    """ArcFace with a margin for each class; classes with fewer images get larger margins (Ha et al., 2020).

    Args:
        margin: margin of the largest class.
        max_margin: margin of the smallest class.
        power: margins are linear in (class size)^-power.
        class_sizes: number of training images of each class, (num_classes,); required.
        monotone: as for ArcFace.
    """

    # Each target's margin depends on its label alone.
    shardable = False
    margins: Tensor

    def __init__(
        self,
        dim: int,
        num_classes: int,
        margin: float = 0.05,
        scale: float = 30.0,
        max_margin: float = 0.5,
        power: float = 0.25,
        class_sizes: Int[Tensor, " n"] | None = None,
        monotone: bool = False,
    ) -> None:
        super().__init__(dim, num_classes, margin, scale, monotone)
        if class_sizes is None or len(class_sizes) != num_classes:
            sizes = "none" if class_sizes is None else len(class_sizes)
            raise UserError(f"a dynamic margin needs the sizes of the {num_classes} classes: class_sizes has {sizes}")
        if not margin <= max_margin < math.pi or power <= 0:
            raise UserError(
                f"margin.max_margin must be in [margin, pi) and margin.power above 0, not {max_margin} and {power}"
            )
        margins = dynamic_margins(class_sizes.float(), margin, max_margin, power)
        self.register_buffer("margins", margins, persistent=False)

    def target_cosine(self, cosine: Float[Tensor, "b 1"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b 1"]:
        """cos(theta + m) with each target's own margin."""
        return self.widened(cosine, self.margins[labels].view(-1, 1))

"""Augmentation: workers decode random crops; everything else is applied to the batch on its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dolglab.data.crops import CropRange
from dolglab.errors import UserError

# The number of uniform random numbers per sample: flip, brightness, contrast, saturation, 3 for colour.
NUM_DRAWS = 7

# Values that a CPU processes at a time, so that they stay in its cache between operations.
CPU_CHUNK = 1_600_000

# Principal components of ImageNet's RGB pixels in [0, 1] and their deviations (Krizhevsky et al., 2012).
_PCA_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_PCA_VALUES = (0.2175, 0.0188, 0.0045)
_LUMA = (0.299, 0.587, 0.114)


@dataclass(eq=False)
class Augmentation:
    """Random changes of a training image. Zero disables a part.

    Args:
        area: smallest and largest share of the image's area in a crop.
        ratio: smallest and largest aspect ratio (width over height) of a crop.
        flip: probability of a mirror image.
        brightness, contrast, saturation: largest relative change.
        colour_pca: deviation of the weights of ImageNet's colour components (the released recipe: 0.1).

    Raises UserError for a range that is empty or outside its bounds.
    """

    area: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    colour_pca: float = 0.0

    def __post_init__(self) -> None:
        area, ratio = self.area, self.ratio
        if not 0 < area[0] <= area[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise UserError(f"augment.area must lie in (0, 1] and augment.ratio above 0, not {area} and {ratio}")
        if not 0 <= self.flip <= 1 or min(self.brightness, self.contrast, self.saturation, self.colour_pca) < 0:
            raise UserError("augment.flip must be a probability, and the other strengths must not be negative")
        self.crop = CropRange((area[0], area[1]), (ratio[0], ratio[1]))

    def __call__(self, images: UInt8[Tensor, "b h w 3"], draws: Float[Tensor, "b n"]) -> Tensor:
        """Augment crops to (B, 3, H, W) RGB in 0..255: uint8, or float32 if colours are changed.

        `draws` decides everything, so that a sample is always the same in the same epoch.
        """
        if images.device.type != "cpu":
            return self._augment(images, draws)
        rows = max(1, CPU_CHUNK // max(1, images[:1].numel()))
        parts = [self._augment(*part) for part in zip(images.split(rows), draws.split(rows), strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _augment(self, images: UInt8[Tensor, "b h w 3"], draws: Float[Tensor, "b n"]) -> Tensor:
        x = images.permute(0, 3, 1, 2)
        if self.flip:
            x = torch.where(draws[:, 0].lt(self.flip).view(-1, 1, 1, 1), x.flip(-1), x)
        if self.brightness or self.contrast or self.saturation:
            # One copy for all operations: on a CPU, new memory for each would cost more than the operation.
            x = x.float()
        if self.brightness:
            x.mul_(_factor(draws[:, 1], self.brightness)).clamp_(0, 255)
        if self.contrast:
            _blend(x, _luma(x).mean((-2, -1), keepdim=True), _factor(draws[:, 2], self.contrast))
        if self.saturation:
            _blend(x, _luma(x), _factor(draws[:, 3], self.saturation))
        if self.colour_pca:
            x = x + colour_shift(draws[:, 4:7], self.colour_pca)
        return x


def colour_shift(draws: Float[Tensor, "b 3"], deviation: float) -> Float[Tensor, "b 3 1 1"]:
    """A shift along ImageNet's colour components, in 0..255, with normally distributed weights."""
    normal = torch.erfinv((2 * draws - 1).clamp(-0.999, 0.999)) * 2**0.5
    weights = normal * deviation * draws.new_tensor(_PCA_VALUES)
    return 255 * (weights @ draws.new_tensor(_PCA_VECTORS).T)[..., None, None]


def _factor(draw: Float[Tensor, " b"], strength: float) -> Float[Tensor, "b 1 1 1"]:
    return (1 + strength * (2 * draw - 1)).view(-1, 1, 1, 1)


def _blend(images: Float[Tensor, "b 3 h w"], grey: Float[Tensor, "b 1 _ _"], factor: Float[Tensor, "b 1 1 1"]) -> None:
    """Move images away from grey, or towards it, in place."""
    images.sub_(grey).mul_(factor).add_(grey).clamp_(0, 255)


def _luma(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    red, green, blue = images.split(1, dim=1)
    return (_LUMA[0] * red).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])

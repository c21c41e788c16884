"""Networks of other projects, and callables, as networks of descriptors: what goes in and comes out is checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from dolglab.contracts import DEFAULT_SIDE, ExtractionProtocol, Features
from dolglab.errors import UserError
from dolglab.models.backbone import NOT_STATED
from dolglab.models.dolg import GlobalDescriptor
from dolglab.models.pooling import AvgPool

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Two shapes on which a network without a size of its own is tried: patches of 14 and of 16 pixels cover both.
TRIALS = ((224, 224), (224, 448))


@dataclass(frozen=True)
class ForeignInput:
    """What a network takes and where it is from.

    Attributes:
        source: its address.
        mean, std: of each colour: the network gets (pixels / 255 - mean) / std, RGB.
        size: height and width to which every image is brought, bilinear with a filter; None leaves images as they are.
        side: pixels that a library shrinks a photo's longer side to before.
        licence: of the weights, where anybody states one.
        arguments: what the network was built with.
        digest: of what it is made of and no tensor of it shows: a file, a module's source, a name. Addresses, which may
            be relative, are not part of a network's fingerprint.
        trusted: whether code from outside runs in it.

    Raises UserError for what is no triple of numbers, deviations not above zero, and a size that is none.
    """

    source: str
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    size: Sequence[int] | None = None
    side: int = DEFAULT_SIDE
    licence: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    trusted: bool = False

    def __post_init__(self) -> None:
        # One number may have been given for all.
        if np.shape(self.mean) != (3,) or np.shape(self.std) != (3,) or min(self.std) <= 0:
            raise UserError(
                f"model.mean and model.std are three numbers each, the latter above 0, not {self.mean} and {self.std}"
            )
        if self.size is not None and (np.shape(self.size) != (2,) or min(self.size) < 1):
            raise UserError(f"model.size is [HEIGHT,WIDTH], at least 1 each, not {self.size}")

    def describe(self, dim: int) -> str:
        """One line for result cards, of a network with descriptors of `dim` numbers."""
        sides = "images of any size" if self.size is None else f"images at {self.size[0]} x {self.size[1]}"
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        trust = ", runs its author's code" if self.trusted else ""
        licence = self.licence or NOT_STATED
        return f"{self.source}: {sides}, mean {mean}, std {std}, {dim} numbers, licence {licence}{trust}"


class ForeignBackbone(nn.Module):
    """A network or callable from images (b, 3, h, w) to descriptors (b, d), as a backbone with maps of one cell.

    Args:
        net: an nn.Module, or any callable.
        given: what it takes and where it is from.

    Attributes are those of `FeatureBackbone`, `size` of `given`, and `has_maps`: False, as there is no place in a
    descriptor, so that nothing is drawn or matched by its cells.

    Raises UserError, at the start as for every image, where `net` fails, gives no table of numbers on the images'
    device or one with NaN or infinity, or descriptors of another length than for other sizes of images.
    """

    reductions: tuple[int, int] = (1, 1)
    has_maps = False

    def __init__(self, net: Callable[[Tensor], Tensor], given: ForeignInput) -> None:
        super().__init__()
        self.net = net
        self.name = given.source
        self.licence = given.licence
        self.side = given.side
        self.size = None if given.size is None else (int(given.size[0]), int(given.size[1]))
        self.mean, self.std = tuple(map(float, given.mean)), tuple(map(float, given.std))
        # What decides descriptors beside the tensors is part of the network's fingerprint.
        decides = (given.digest, self.mean, self.std, self.size, given.arguments)
        text = json.dumps(decides, sort_keys=True, default=str)
        made_of = hashlib.blake2b(text.encode(), digest_size=16).digest()
        self.register_buffer("made_of", torch.tensor(list(made_of), dtype=torch.uint8))
        self.register_buffer("_mean", torch.tensor(self.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(self.std).view(3, 1, 1), persistent=False)
        self._mean: Tensor
        self._std: Tensor
        self.eval()
        dim = self._try()
        self.out_channels = (dim, dim)

    def normalise(self, images: Shaped[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """RGB pixels in 0..255, of any dtype, as the float32 input that the network expects."""
        return (images.float() / 255 - self._mean) / self._std

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        """Normalised images to their descriptors, as maps of one cell."""
        descriptors = self._described(images)
        if descriptors.shape[1] != self.out_channels[1]:
            raise UserError(
                f"{self.name} gives {descriptors.shape[1]} numbers for images {_sides(images)}, and "
                f"{self.out_channels[1]} for others: give model.size=[HEIGHT,WIDTH], to which every image is brought"
            )
        cells = descriptors[:, :, None, None]
        return Features(local=cells, global_=cells)

    def levels(self) -> list[list[nn.Parameter]]:
        """All parameters: what follows what is not known."""
        return [list(self.parameters())]

    def _described(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            images = F.interpolate(images, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        try:
            found = self.net(images)
        except UserError:
            raise
        except Exception as error:
            # Code from elsewhere may raise anything.
            why = " ".join(str(error).split())[:200]
            raise UserError(f"{self.name} fails on images {_sides(images)}: {type(error).__name__}: {why}") from error
        if not isinstance(found, Tensor):
            raise UserError(f"{self.name} gives {type(found).__name__}, not a tensor (images, numbers)")
        if found.device != images.device:
            raise UserError(f"{self.name} gives tensors on {found.device} for images on {images.device}")
        if found.ndim != 2 or len(found) != len(images) or not found.is_floating_point():
            raise UserError(
                f"{self.name} gives {found.dtype} {tuple(found.shape)} for {len(images)} images, not ({len(images)}, "
                "numbers)"
            )
        return found

    @torch.no_grad()
    def _try(self) -> int:
        """The length of descriptors, as two shapes of images have it, or the one that they are all brought to."""
        lengths = []
        for height, width in TRIALS:
            trial = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
            found = self._described(self.normalise(255 * trial))
            if not found.isfinite().all():
                raise UserError(f"{self.name} gives NaN or infinity for noise {_sides(trial)}: are its weights loaded?")
            lengths.append(found.shape[1])
        if len(set(lengths)) > 1:
            raise UserError(
                f"{self.name} gives {lengths[0]} numbers for images {TRIALS[0]} and {lengths[1]} for {TRIALS[1]}: give "
                "model.size=[HEIGHT,WIDTH], to which every image is brought"
            )
        return lengths[0]


def foreign_network(net: Callable[[Tensor], Tensor], given: ForeignInput) -> GlobalDescriptor:
    """The network of descriptors that a network or callable of somebody else is, in eval mode; one scale an image.

    Raises UserError as `ForeignBackbone`.
    """
    network = GlobalDescriptor(ForeignBackbone(net, given), AvgPool, dim=None)
    network.protocol = ExtractionProtocol((1.0,), note=given.describe(network.dim))
    return network.eval()


def _sides(images: Tensor) -> str:
    return f"of {images.shape[-2]} x {images.shape[-1]}"

"""Networks of other projects, and callables, as descriptor networks: their inputs and outputs are checked."""

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
# Two image shapes to try a network on that has no fixed size; both are multiples of 14 and of 16 pixels.
TRIALS = ((224, 224), (224, 448))


@dataclass(frozen=True)
class ForeignInput:
    """A network's input format and origin.

    Attributes:
        source: its address.
        mean, std: for each colour; the network's input is (pixels / 255 - mean) / std, RGB.
        size: height and width to which every image is resized, bilinear with antialiasing; None does not resize.
        side: the size in pixels to which a library shrinks a photo's longer side first.
        licence: licence of the weights, if stated.
        arguments: the arguments the network was built with.
        digest: digest of what defines the network in addition to its tensors: a file, a module's source, a name.
            Addresses may be relative, so they are not part of a network's fingerprint.
        trusted: whether it runs code from outside this project.

    Raises UserError for `mean` and `std` that are not three numbers, an `std` not above zero, and an invalid size.
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
        # A single number may have been given for all colours.
        if np.shape(self.mean) != (3,) or np.shape(self.std) != (3,) or min(self.std) <= 0:
            raise UserError(
                f"model.mean and model.std must be three numbers each, std above 0, not {self.mean} and {self.std}"
            )
        if self.size is not None and (np.shape(self.size) != (2,) or min(self.size) < 1):
            raise UserError(f"model.size must be [HEIGHT,WIDTH], at least 1 each, not {self.size}")

    def describe(self, dim: int) -> str:
        """One line for result cards about a network with descriptors of `dim` numbers."""
        sides = "images of any size" if self.size is None else f"images at {self.size[0]} x {self.size[1]}"
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        trust = ", runs its author's code" if self.trusted else ""
        licence = self.licence or NOT_STATED
        return f"{self.source}: {sides}, mean {mean}, std {std}, {dim} numbers, licence {licence}{trust}"


class ForeignBackbone(nn.Module):
    """A network or callable from images (b, 3, h, w) to descriptors (b, d), as a backbone whose maps have one cell.

    Args:
        net: an nn.Module, or any callable.
        given: its input format and origin.

    Attributes are those of `FeatureBackbone`, `size` from `given`, and `has_maps`, which is False: a descriptor has no
    positions, so nothing can be drawn or matched by its cells.

    Raises UserError, at construction and for every image, if `net` fails, or if its output is not a table of finite
    numbers on the images' device, or if the length of descriptors depends on the size of images.
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
        # Whatever determines descriptors in addition to the tensors is part of the network's fingerprint.
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
        """Turn RGB pixels in 0..255, of any dtype, into the float32 input that the network expects."""
        return (images.float() / 255 - self._mean) / self._std

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        """Compute descriptors of normalised images, as maps of one cell."""
        descriptors = self._described(images)
        if descriptors.shape[1] != self.out_channels[1]:
            raise UserError(
                f"{self.name} returns {descriptors.shape[1]} numbers for images {_sides(images)}, and "
                f"{self.out_channels[1]} for others: set model.size=[HEIGHT,WIDTH] to resize every image"
            )
        cells = descriptors[:, :, None, None]
        return Features(local=cells, global_=cells)

    def levels(self) -> list[list[nn.Parameter]]:
        """All parameters in one group: their order by depth is not known."""
        return [list(self.parameters())]

    def _described(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            images = F.interpolate(images, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        try:
            found = self.net(images)
        except UserError:
            raise
        except Exception as error:
            # External code may raise anything.
            why = " ".join(str(error).split())[:200]
            raise UserError(f"{self.name} fails on images {_sides(images)}: {type(error).__name__}: {why}") from error
        if not isinstance(found, Tensor):
            raise UserError(f"{self.name} returns {type(found).__name__}, not a tensor (images, numbers)")
        if found.device != images.device:
            raise UserError(f"{self.name} returns tensors on {found.device} for images on {images.device}")
        if found.ndim != 2 or len(found) != len(images) or not found.is_floating_point():
            raise UserError(
                f"{self.name} returns {found.dtype} {tuple(found.shape)} for {len(images)} images, not ({len(images)}, "
                "numbers)"
            )
        return found

    @torch.no_grad()
    def _try(self) -> int:
        """The length of descriptors, tried on two image shapes, or on the one to which all images are resized."""
        lengths = []
        for height, width in TRIALS:
            trial = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
            found = self._described(self.normalise(255 * trial))
            if not found.isfinite().all():
                raise UserError(
                    f"{self.name} returns NaN or infinity for noise {_sides(trial)}: are its weights loaded?"
                )
            lengths.append(found.shape[1])
        if len(set(lengths)) > 1:
            raise UserError(
                f"{self.name} returns {lengths[0]} numbers for images {TRIALS[0]} and {lengths[1]} for {TRIALS[1]}: "
                "set model.size=[HEIGHT,WIDTH] to resize every image"
            )
        return lengths[0]


def foreign_network(net: Callable[[Tensor], Tensor], given: ForeignInput) -> GlobalDescriptor:
    """Wrap an external network or callable as a descriptor network, in eval mode; its default is one scale per image.

    Raises UserError like `ForeignBackbone`.
    """
    network = GlobalDescriptor(ForeignBackbone(net, given), AvgPool, dim=None)
    network.protocol = ExtractionProtocol((1.0,), note=given.describe(network.dim))
    return network.eval()


def _sides(images: Tensor) -> str:
    return f"of {images.shape[-2]} x {images.shape[-1]}"

"""Pretrained convolutional backbones that give two feature maps in named roles."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Sequence
from pathlib import Path

import timm
import torch
from jaxtyping import Float, Shaped
from timm.models import FeatureInfo
from torch import Tensor, nn

from src.contracts import Features, InputError


class Backbone(nn.Module):
    """A timm network cut into the map for the local branch and the map for the global branch.

    Args:
        name: timm architecture with its weight tag pinned, e.g. "resnet50.tv_in1k".
        pretrained: download the tag's weights (needs the network once; ignored when `weights` is given).
        weights: a file with the architecture's tensors, or `package:PACKAGE/FILE` inside an installed package.
        reductions: strides of the local and the global map (DOLG: 16 and 32; res3 and res4 of a ResNet).
        freeze_bn: keep batch-norm statistics and affine parameters as they are, in train mode too.
        freeze_until: keep everything up to the map with this reduction as it is (2 or 4: the early, costly layers);
            0 trains all.

    Attributes:
        out_channels: channels of the local and the global map.
        reductions: strides of the local and the global map.
        mean, std: the colour statistics the weights were trained with, for pixels in [0, 1].

    Raises:
        InputError: unknown name, no map with that reduction, weights that cannot be had or do not fit.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = True,
        weights: str | None = None,
        reductions: Sequence[int] = (16, 32),
        freeze_bn: bool = False,
        freeze_until: int = 0,
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise InputError(f"unknown backbone {name!r}: take a name from timm.list_models()")
        self.name = name
        self.freeze_bn = freeze_bn
        self.reductions = (int(reductions[0]), int(reductions[1]))
        stages = _stages(name)
        indices = _indices(name, stages, (*self.reductions, freeze_until) if freeze_until else self.reductions)
        self.net = _create(name, pretrained and weights is None, indices[:2])
        if weights is not None:
            _load_weights(self.net, name, weights)
        info: FeatureInfo = self.net.feature_info  # pyright: ignore[reportAssignmentType]
        channels = info.channels()
        self.out_channels = (channels[0], channels[-1])
        self.frozen = _up_to(self.net, stages[freeze_until]) if freeze_until else []
        config = timm.get_pretrained_cfg(name)
        self.mean: tuple[float, ...] = tuple(config.mean) if config else (0.5, 0.5, 0.5)
        self.std: tuple[float, ...] = tuple(config.std) if config else (0.5, 0.5, 0.5)
        self._scale: Tensor
        self._shift: Tensor
        self.register_buffer("_scale", 1 / (255 * torch.tensor(self.std)), persistent=False)
        self.register_buffer("_shift", -torch.tensor(self.mean) / torch.tensor(self.std), persistent=False)
        # Lightning never calls `train()` before it fits: what is frozen is so from the start.
        self.train()

    def normalise(self, images: Shaped[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """RGB pixels in 0..255, of any dtype, as the float32 input that the weights expect, channels last."""
        batch, _, height, width = images.shape
        pixels = images.permute(0, 2, 3, 1).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        # A row at a time and in place: on CPUs a broadcast over three values costs several times as much, and so do
        # the page faults of a second buffer.
        rows = pixels.view(batch, height, 3 * width)
        rows.mul_(self._scale.repeat(width)).add_(self._shift.repeat(width))
        return pixels.permute(0, 3, 1, 2)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        """Normalised images to the two maps."""
        maps = self.net(images)
        return Features(local=maps[0], global_=maps[-1])

    def train(self, mode: bool = True) -> Backbone:
        """As nn.Module.train, with frozen parts left in eval mode."""
        super().train(mode)
        norms = _batch_norms(self.net) if self.freeze_bn else ()
        for layer in (*self.frozen, *norms):
            layer.eval()
            layer.requires_grad_(False)
        return self


def _stages(name: str) -> dict[int, str]:
    """The reduction of each of the network's maps, in order, and the module that gives it."""
    with torch.device("meta"):
        info: FeatureInfo = timm.create_model(name, pretrained=False, features_only=True).feature_info  # pyright: ignore[reportAssignmentType]
    return dict(zip(info.reduction(), info.module_name(), strict=True))


def _indices(name: str, stages: dict[int, str], reductions: Sequence[int]) -> list[int]:
    missing = [reduction for reduction in reductions if reduction not in stages]
    if missing:
        raise InputError(f"backbone {name} has maps with reductions {list(stages)}, not {missing}")
    return [list(stages).index(reduction) for reduction in reductions]


def _create(name: str, pretrained: bool, indices: Sequence[int]) -> nn.Module:
    try:
        return timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=tuple(sorted(set(indices)))
        )
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise InputError(
            f"the weights of {name} could not be downloaded ({type(error).__name__}): connect to the network, "
            "or give backbone.weights=FILE, or backbone.pretrained=false"
        ) from error


def _load_weights(net: nn.Module, name: str, weights: str) -> None:
    """Load a file's tensors into `net`, by key, or in order where the keys are another library's."""
    stored = _read_tensors(_resolve(weights))
    full = timm.create_model(name, pretrained=False).state_dict()
    if stored.keys() != full.keys():
        stored = _in_order(stored, full, weights, name)
    wrong = [key for key, value in full.items() if stored[key].shape != value.shape]
    if wrong:
        raise InputError(f"{weights} does not fit {name}: {len(wrong)} tensors have another shape ({wrong[0]})")
    net.load_state_dict({key: stored[key] for key in net.state_dict()})


def _in_order(stored: dict[str, Tensor], full: dict[str, Tensor], weights: str, name: str) -> dict[str, Tensor]:
    if len(stored) != len(full):
        raise InputError(f"{weights} has {len(stored)} tensors and {name} has {len(full)}: not its weights")
    return dict(zip(full, stored.values(), strict=True))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"backbone weights not found: {path}") from None
    except Exception as error:
        raise InputError(f"{path} is not a file of tensors ({type(error).__name__})") from error


def _resolve(weights: str) -> Path:
    if not weights.startswith("package:"):
        return Path(weights)
    package, _, file = weights.removeprefix("package:").partition("/")
    try:
        return Path(str(importlib.resources.files(package) / file))
    except ModuleNotFoundError:
        raise InputError(f"the package {package} with the backbone's weights is not installed") from None


def _up_to(net: nn.Module, last: str) -> list[nn.Module]:
    """The modules with tensors of their own that run before the end of the module called `last`, in order."""
    modules = list(net.named_modules())
    end = max(place for place, (name, _) in enumerate(modules) if f"{name}.".startswith(f"{last}."))
    return [module for _, module in modules[: end + 1] if any(True for _ in _own_tensors(module))]


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _batch_norms(module: nn.Module) -> Iterator[nn.Module]:
    return (layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))

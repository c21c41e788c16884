"""Backbones that compute a local and a global feature map: their interface, and the pretrained ones of timm."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from timm.layers.helpers import to_2tuple
from timm.models import FeatureInfo, PretrainedCfg
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dolglab.contracts import DEFAULT_SIDE, Features
from dolglab.errors import UserError
from dolglab.models.weights import COUNTER, below, check_finite, check_fit, read_file, tensors_of, with_counters

# See `side_of`.
LEAST_SIDE = 512
# The licence of weights for which none is stated.
NOT_STATED = "not stated"


class Stage(NamedTuple):
    """The module whose output is a map, and that map's reduction."""

    module: str
    reduction: int


@runtime_checkable
class FeatureBackbone(Protocol):
    """The interface of a backbone for training, checkpoints, evaluation and export: an nn.Module with these members.

    `Backbone` implements it. Put your own class into a module of `dolglab.models`, or into an installed package that
    declares an entry point (see `dolglab.models.checkpoint`), so that checkpoints can find it. If it downloads weights,
    let its arguments `pretrained` and `weights` say so: they are ignored when a checkpoint is loaded.

    Attributes:
        name: name of the architecture and its weights, for cards and error messages.
        licence: licence of the initial weights; None if none is stated.
        out_channels: channels of the local and the global map.
        reductions: strides of the local and the global map.
        training: whether it is in train mode, as in nn.Module.

    Optional: `mean` and `std`, three numbers each, let an ONNX file state how images are normalised; `side` tells a
    library to which size it should shrink photos.
    """

    name: str
    licence: str | None
    out_channels: tuple[int, int]
    reductions: tuple[int, int]
    training: bool

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        """Compute the two maps of normalised images."""
        ...

    def normalise(self, images: Shaped[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Turn RGB pixels in 0..255, of any dtype, into the float32 input that the weights expect."""
        ...

    def levels(self) -> list[list[nn.Parameter]]:
        """All parameters in groups from input to output, for learning rates by depth; one group is enough."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As in nn.Module."""
        ...

    def train(self, mode: bool = True) -> Any:
        """As in nn.Module."""
        ...


class Backbone(nn.Module):
    """A timm network cut into the map for the local branch and the map for the global branch.

    Args:
        name: timm architecture with its weight tag pinned, e.g. "resnet50.tv_in1k".
        pretrained: download the tag's weights (needs the network once; ignored when `weights` is given).
        weights: a file with tensors of this architecture: a path, `package:PACKAGE/FILE` or `hf://OWNER/NAME/FILE`.
        reductions: strides of the local and the global map (DOLG: 16 and 32; res3 and res4 of a ResNet).
        depths: for transformers with one stride, the blocks (from 0) whose outputs are the local and the global map.
        freeze_bn: do not update batch-norm statistics and affine parameters, not even in train mode.
        freeze_until: do not train the layers up to the map with this reduction (2 or 4: the early, costly layers). For
            a transformer with one stride, the number of its first blocks that are not trained. 0 trains all.
        drop_path: largest probability of stochastic depth, if the architecture has it.
        options: options of the architecture, such as `dynamic_img_size`, except those by which timm loads weights.
        licence: licence of `weights`, if they are not the tag's.
        final_norm: apply the last norm of a transformer with one stride to its maps and class token. Other networks
            have no norm after their maps and ignore this.

    Attributes (in addition to those of `FeatureBackbone`):
        mean, std: the colour statistics the weights were trained with, for pixels in [0, 1].
        side: the size in pixels to which a photo's longer side is best shrunk, see `side_of`.
        licence: licence of `weights` as given, else of the tag as timm states it; None if unknown.

    Raises UserError for an unknown name, a reduction or depth without a map, and weights that are missing or do not
    fit.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = True,
        weights: str | None = None,
        reductions: Sequence[int] = (16, 32),
        depths: Sequence[int] | None = None,
        freeze_bn: bool = False,
        freeze_until: int = 0,
        drop_path: float = 0.0,
        options: Mapping[str, Any] | None = None,
        licence: str | None = None,
        final_norm: bool = False,
    ) -> None:
        super().__init__()
        config = _pretrained_config(name)
        self.name = name
        self.freeze_bn = freeze_bn
        _check_options(options or {})
        options = {**(options or {}), **({"drop_path_rate": drop_path} if drop_path else {})}
        self._stages = _find_stages(name, options)
        self._local, self._global = _chosen_stages(name, self._stages, reductions, depths)
        taken = sorted({self._local, self._global})
        self.final_norm = final_norm and self._stages[0].module.startswith("blocks.")
        self.net = _create(name, pretrained, weights, taken, options, self.final_norm)
        # The class token is the first token before the patches; some networks have only registers there.
        model = getattr(self.net, "model", None)
        self._has_token = getattr(model, "num_prefix_tokens", 0) > 0 and getattr(model, "cls_token", None) is not None
        info: FeatureInfo = self.net.feature_info  # pyright: ignore[reportAssignmentType]
        channels = dict(zip(taken, info.channels(), strict=True))
        self.out_channels = (channels[self._local], channels[self._global])
        self.reductions = (self._stages[self._local].reduction, self._stages[self._global].reduction)
        self._channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        # The side in pixels of a transformer's patches; 1 for convolutional networks.
        patches: list[Any] = [module.patch_size for module in self.net.modules() if hasattr(module, "patch_size")]
        self._patch = int(to_2tuple(patches[0])[0]) if patches else 1
        self.frozen = self._frozen_parts(freeze_until)
        self.licence = licence or (config.license if config and weights is None else None)
        self.mean: tuple[float, ...] = tuple(config.mean) if config else (0.5, 0.5, 0.5)
        self.std: tuple[float, ...] = tuple(config.std) if config else (0.5, 0.5, 0.5)
        self.side = side_of(config)
        self._scale: Tensor
        self._shift: Tensor
        self.register_buffer("_scale", 1 / (255 * torch.tensor(self.std)), persistent=False)
        self.register_buffer("_shift", -torch.tensor(self.mean) / torch.tensor(self.std), persistent=False)
        # Lightning never calls `train()` before fitting, so freeze at once.
        self.train()

    def normalise(self, images: Shaped[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Turn RGB pixels in 0..255, of any dtype, into the float32 input that the weights expect, channels last."""
        batch, _, height, width = images.shape
        pixels = images.permute(0, 2, 3, 1).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        # One row at a time and in place: on CPUs a broadcast over three values is several times as slow, and so are
        # the page faults of a second buffer.
        rows = pixels.view(batch, height, 3 * width)
        rows.mul_(self._scale.repeat(width)).add_(self._shift.repeat(width))
        return pixels.permute(0, 3, 1, 2)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        """Compute the two maps of normalised images; images are padded with zeros to a whole number of patches."""
        height, width = images.shape[-2:]
        if height % self._patch or width % self._patch:
            images = F.pad(images, (0, -width % self._patch, 0, -height % self._patch))
        # The network returns each map once, in its own order.
        local, global_ = (0, -1) if self._local <= self._global else (-1, 0)
        if self._has_token:
            pairs = self._maps_with_tokens(images)
            return Features(pairs[local][0], pairs[global_][0], token=pairs[global_][1][:, 0])
        maps = self.net(images)
        if self._channels_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        return Features(local=maps[local], global_=maps[global_])

    def _maps_with_tokens(self, images: Float[Tensor, "b 3 h w"]) -> list[tuple[Tensor, Tensor]]:
        """The outputs of a transformer's `net`: each map with its prefix tokens."""
        net: Any = self.net
        return net.model.forward_intermediates(
            images, indices=net.out_indices, norm=net.norm, return_prefix_tokens=True, intermediates_only=True
        )

    def train(self, mode: bool = True) -> Backbone:
        """Like nn.Module.train, but frozen parts stay in eval mode."""
        super().train(mode)
        norms = [part for part in self.net.modules() if isinstance(part, _BatchNorm)] if self.freeze_bn else []
        for part in (*self.frozen, *norms):
            part.training = False
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(False)
        return self

    def levels(self) -> list[list[nn.Parameter]]:
        """The parameters in groups from input to output, one per stage or block, for rates that depend on depth."""
        modules = list(self.net.modules())
        bounds = _ends(self.net, self._stages)
        bounds[-1] = len(modules) - 1
        groups = []
        for start, end in zip([0, *(bound + 1 for bound in bounds[:-1])], bounds, strict=True):
            groups.append([p for module in modules[start : end + 1] for p in module.parameters(recurse=False)])
        return groups

    def _frozen_parts(self, freeze_until: int) -> list[nn.Module]:
        """The modules up to the end of a stage, and the unused ones that some of timm's networks have after the last
        map.

        Only modules that hold tensors themselves, or that contain no other module.
        """
        modules, bounds = list(self.net.modules()), _ends(self.net, self._stages)
        frozen = [] if self.final_norm else modules[bounds[max(self._local, self._global)] + 1 :]
        if freeze_until:
            single = len({stage.reduction for stage in self._stages}) == 1
            last = freeze_until - 1 if single else _by_reduction(self.name, self._stages, freeze_until)
            if not 0 <= last < len(bounds):
                raise UserError(
                    f"backbone.freeze_until={freeze_until} is beyond the {len(bounds)} stages of {self.name}"
                )
            frozen = modules[: bounds[last] + 1] + frozen
        return [m for m in frozen if [*m.parameters(recurse=False), *m.buffers(recurse=False)] or not [*m.children()]]


def without_weights(options: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's arguments without its weights, which come from elsewhere: nothing is downloaded, the licence is
    kept.

    >>> without_weights({"name": "resnet50.tv_in1k", "weights": "mine.pth"})
    {'name': 'resnet50.tv_in1k', 'weights': None, 'pretrained': False, 'licence': 'not stated'}
    """
    licence = options.get("licence") or (NOT_STATED if options.get("weights") else None)
    return {**options, "pretrained": False, "weights": None, "licence": licence}


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise UserError for options of `timm.create_model` itself: files and addresses are given by `weights` alone."""
    taken = {*inspect.signature(timm.create_model).parameters, "features_only", "out_indices"}
    if theirs := sorted(options.keys() & taken):
        raise UserError(f"backbone.options cannot hold {', '.join(theirs)}: options are the architecture's own")


def _pretrained_config(name: str) -> PretrainedCfg | None:
    """timm's configuration of an architecture's weights. Raises UserError for a name or tag that timm does not know."""
    if not timm.is_model(name):
        raise UserError(f"unknown backbone {name!r}: choose a name from timm.list_models()")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        architecture, _, tag = name.partition(".")
        known = ", ".join(timm.list_pretrained(f"{architecture}.*"))
        raise UserError(f"{architecture} has no weights {tag!r}: choose one of {known or 'none'}") from None


def side_of(config: PretrainedCfg | None) -> int:
    """The size in pixels to which a photo's longer side is best shrunk, from timm's configuration of the weights.

    Convolutional networks accept any size and get `DEFAULT_SIDE`. Networks of a fixed input size (windows, position
    embeddings on a grid, attention between all patches) get the longer side they were trained with, but at least
    `LEAST_SIDE`: smaller photos lose the details that distinguish them (experiments/benchmarks/photo_sizes.py).
    """
    if config is None or not config.fixed_input_size:
        return DEFAULT_SIDE
    return max(LEAST_SIDE, *config.input_size[1:])


def _chosen_stages(
    name: str, found: list[Stage], reductions: Sequence[int], depths: Sequence[int] | None
) -> tuple[int, int]:
    """Positions of the stages whose outputs are the local and the global map."""
    if depths is None:
        return _by_reduction(name, found, int(reductions[0])), _by_reduction(name, found, int(reductions[1]))
    if len(depths) != 2 or not all(0 <= depth < len(found) for depth in depths):
        raise UserError(f"backbone.depths must be two of the {len(found)} blocks of {name}, from 0, not {list(depths)}")
    return int(depths[0]), int(depths[1])


class NormedGetter(FeatureGetterNet):
    """timm's network of intermediate features, followed by the network's last norm."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, norm=True, **options)


def _create(
    name: str, pretrained: bool, weights: str | None, indices: Sequence[int], options: Mapping[str, Any], normed: bool
) -> nn.Module:
    # timm warns about the classifier's tensors, which a feature network does not use.
    logging.getLogger("timm.models._builder").setLevel(logging.ERROR)
    given: dict[str, Any] = {"features_only": True, "out_indices": tuple(indices), **options}
    if normed:
        given["feature_cls"] = NormedGetter
    if weights is not None:
        given["pretrained_cfg_overlay"] = {"state_dict": _fitting(name, weights)}
    try:
        return timm.create_model(name, pretrained=pretrained or weights is not None, **given)
    except (OSError, RuntimeError) as error:
        if not pretrained or weights is not None:
            raise
        raise UserError(
            f"the weights of {name} could not be downloaded ({type(error).__name__}): connect to the network, "
            "give backbone.weights=FILE or backbone.pretrained=false, or use backbone=efficientnet_lite0, whose "
            "weights are installed"
        ) from error


def _fitting(name: str, weights: str) -> dict[str, Tensor]:
    """A file's tensors under the architecture's names: matched by name, or by order if another library named them.

    Tensors that do not affect features may be missing: the counters of batch norms, and the classifier, which may also
    have other classes. Raises UserError for tensors of another architecture, and values that are not finite.
    """
    stored = tensors_of(read_file(weights), weights)
    full = timm.create_model(name, pretrained=False).state_dict()
    named = getattr(timm.get_pretrained_cfg(name), "classifier", None) or ()
    heads = tuple(f"{head}." for head in ([named] if isinstance(named, str) else named))
    found = _by_name(full, stored, heads, weights) or _in_order(full, stored, heads)
    if not found:
        raise UserError(f"{weights} has {len(stored)} tensors and {name} has {len(full)}: not its weights")
    classifier = {key: value for key, value in full.items() if key.startswith(heads)}
    found = with_counters(found, full) | classifier
    check_fit(full, found, f"{weights}, for {name},")
    check_finite(found, weights)
    return found


def _by_name(
    full: Mapping[str, Tensor], stored: Mapping[str, Tensor], heads: tuple[str, ...], weights: str
) -> dict[str, Tensor]:
    """The stored tensors with the names of `full`, below whatever prefix the network had during its training.

    Other tensors may be present, such as projection heads. But if modules of the network hold more tensors than
    expected, as those of a deeper network do, nothing is found. Of several networks the teacher is used. Raises
    UserError for several networks without a teacher.
    """
    needed = [key for key in full if not key.endswith(COUNTER) and not key.startswith(heads)]
    prefixes = [key.removesuffix(needed[0]) for key in stored if f".{key}".endswith(f".{needed[0]}")]
    prefixes = [prefix for prefix in prefixes if all(prefix + key in stored for key in needed)]
    prefixes = [prefix for prefix in prefixes if "teacher" in prefix] or prefixes
    if len(prefixes) > 1:
        raise UserError(f"{weights} holds several networks, below {' and '.join(prefixes)}: keep one of them")
    found = below(stored, prefixes[0]) if prefixes else {}
    modules = {key.partition(".")[0] for key in needed}
    own = {key for key in found if key.partition(".")[0] in modules and not key.startswith(heads)}
    return {key: found[key] for key in full if key in found} if own <= full.keys() else {}


def _in_order(full: Mapping[str, Tensor], stored: Mapping[str, Tensor], heads: tuple[str, ...]) -> dict[str, Tensor]:
    """The stored tensors under the names of `full`, or of its required part, if the numbers of tensors agree."""
    counters = {key for key in full if key.endswith(COUNTER)}
    classifier = {key for key in full if key.startswith(heads)}
    for left_out in (set(), counters, classifier, counters | classifier):
        names = [key for key in full if key not in left_out]
        if len(names) == len(stored):
            return dict(zip(names, stored.values(), strict=True))
    return {}


def _find_stages(name: str, options: Mapping[str, Any]) -> list[Stage]:
    """A network's stages from input to output; for a transformer with one stride, its blocks.

    Raises UserError for a network without feature maps.
    """
    try:
        with torch.device("meta"):
            net = timm.create_model(name, pretrained=False, features_only=True, **options)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise UserError(f"backbone {name} gives no feature maps with {dict(options)}: {error}") from error
    info: FeatureInfo = net.feature_info  # pyright: ignore[reportAssignmentType]
    found = [Stage(*pair) for pair in zip(info.module_name(), info.reduction(), strict=True)]
    blocks = getattr(getattr(net, "model", None), "blocks", None)
    if blocks is not None and len({stage.reduction for stage in found}) == 1:
        return [Stage(f"blocks.{block}", found[0].reduction) for block in range(len(blocks))]
    return found


def _by_reduction(name: str, found: list[Stage], reduction: int) -> int:
    """The position of the stage with this reduction. Raises UserError if there is none, or more than one."""
    reductions = [stage.reduction for stage in found]
    if len(set(reductions)) < len(reductions):
        raise UserError(
            f"the maps of {name} share one stride: give backbone.depths=[a,b], blocks below {len(reductions)}"
        )
    if reduction not in reductions:
        raise UserError(f"backbone {name} has maps with reductions {reductions}, not {reduction}")
    return reductions.index(reduction)


def _ends(net: nn.Module, found: list[Stage]) -> list[int]:
    """The position of each stage's last module in `net.modules()`, for the stages that `net` contains."""
    names = [_flat(name) for name, _ in net.named_modules()]
    places = [[i for i, name in enumerate(names) if f"{name}_".startswith(f"{_flat(s.module)}_")] for s in found]
    return [inside[-1] for inside in places if inside]


def _flat(name: str) -> str:
    """A module's name in timm's wrappers, which rename `stages.2` to `stages_2`, or put networks below `model`."""
    return name.removeprefix("model.").replace(".", "_")

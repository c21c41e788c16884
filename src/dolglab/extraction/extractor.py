"""Compute multi-scale descriptors of images of any shape with torch, and prepare networks for it.

Also computes the attention map of a photo, and the terms of a cosine.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from dolglab.contracts import Resize, ScalePooling
from dolglab.extraction.shapes import CPU_PIXELS, GPU_PIXELS, ShapeBuckets, check_protocol, scaled_sides
from dolglab.models.dolg import DOLG, AdaptedDescriptor, DescriptorModel

# The paper's five (Yang et al., ICCV 2021, section 4.1).
PAPER_SCALES = (0.3535, 0.5, 0.7071, 1.0, 1.4142)
# Side in pixels of the image for trial runs: large enough for a few cells in every stage, and accepted by transformers.
TRIAL = 224
M = TypeVar("M", bound=nn.Module)
Image = UInt8[Tensor, "_ _ 3"]
Group = list[tuple[int, Image]]


class Extractor:
    """Computes L2-normalised multi-scale descriptors of images of any shape.

    Each scale's descriptor is L2-normalised; their mean is L2-normalised again (as in the DOLG paper, at
    `PAPER_SCALES`). For alternatives see `join_scales`.

    Args:
        model: a network whose `backbone` normalises images.
        scales: factors on the image's size.
        resize: "released" is plain bilinear, as in the released code; "antialias" filters first.
        scale_pooling: "mean" or "max", see `join_scales`.
        pixels: most pixels, at the largest scale, of images of one shape that are processed together; bounds the memory
            of a batch. A larger image is processed alone. None uses a value that is fast on the network's device.

    Raises UserError for no scales, a scale that is not above 0, and an unknown `resize` or `scale_pooling`.
    """

    def __init__(
        self,
        model: DescriptorModel,
        scales: Sequence[float] = (1.0,),
        resize: Resize = "released",
        pixels: int | None = None,
        scale_pooling: ScalePooling = "mean",
    ) -> None:
        check_protocol(scales, resize, scale_pooling)
        self.model = model
        self.scales = tuple(float(scale) for scale in scales)
        self.resize: Resize = resize
        self.scale_pooling: ScalePooling = scale_pooling
        self.pixels = pixels

    def __call__(self, images: Sequence[UInt8[Tensor, "_ _ 3"]]) -> Float[Tensor, "b d"]:
        """Descriptors of RGB images, in the given order."""
        buckets = self.buckets()
        groups = [group for i, image in enumerate(images) for group in buckets.add(i, image)]
        groups += buckets.rest()
        parts = [self.together([image for _, image in group]) for group in groups]
        order = torch.tensor([key for group in groups for key, _ in group], device=parts[0].device)
        return torch.cat(parts)[order.argsort()]

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return device_of(self.model)

    def buckets(self) -> ShapeBuckets[Image]:
        """A new `ShapeBuckets` that groups images for `together`."""
        fast = CPU_PIXELS if self.device.type == "cpu" else GPU_PIXELS
        pixels = fast if self.pixels is None else self.pixels
        return ShapeBuckets(pixels / max(1.0, *self.scales) ** 2)

    def together(self, images: Sequence[UInt8[Tensor, "h w 3"]]) -> Float[Tensor, "b d"]:
        """Descriptors of images of one shape, in one pass per scale."""
        pixels = torch.stack(list(images)).to(self.device).permute(0, 3, 1, 2).float()
        single = [F.normalize(self.describe(rescale(pixels, scale, self.resize))) for scale in self.scales]
        return join_scales(torch.stack(single), self.scale_pooling)

    def describe(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Descriptors of RGB images in 0..255, at their own size."""
        return self.model(self.model.backbone.normalise(pixels))


def device_of(model: nn.Module) -> torch.device:
    """A network's device, from its first tensor: external networks may have no parameters."""
    return next(itertools.chain(model.parameters(), model.buffers())).device


def join_scales(descriptors: Float[Tensor, "s b d"], scale_pooling: ScalePooling) -> Float[Tensor, "b d"]:
    """Join L2-normalised descriptors of several scales into one, L2-normalised.

    "mean" is that of the DOLG paper. "max", element by element, is the scale GeM of SuperGlobal's public code (Shao et
    al., ICCV 2023); with the finite power of that paper, a descriptor would depend on the other images of its batch.

    >>> join_scales(torch.tensor([[[0.6, 0.8]], [[0.8, 0.6]]]), "max")
    tensor([[0.7071, 0.7071]])
    """
    return F.normalize(descriptors.mean(0) if scale_pooling == "mean" else descriptors.amax(0))


def rescale(pixels: Float[Tensor, "b 3 h w"], scale: float, resize: Resize) -> Float[Tensor, "b 3 h2 w2"]:
    """Images resized by `scale`; sides are rounded to whole pixels, at least one."""
    if scale == 1:
        return pixels
    size = scaled_sides(pixels.shape[-2:], scale)
    return F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=resize == "antialias")


def attention_scores(model: DescriptorModel, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h1 w1"]:
    """Attention scores, at least 0, on a grid over the whole photo at its own size, by a network in eval mode."""
    device = device_of(model)
    with torch.inference_mode():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
        maps = model.local_maps(model.backbone.normalise(pixels))
    return maps.scores[0, 0].float().cpu().numpy()


class Parts(NamedTuple):
    """The summands of a descriptor before it is L2-normalised, (D,) each; None for a part that the network lacks."""

    global_: Float[Tensor, " d"]
    local: Float[Tensor, " d"] | None
    bias: Float[Tensor, " d"] | None

    @property
    def whole(self) -> Float[Tensor, " d"]:
        return torch.stack([part for part in self if part is not None]).sum(0)


class Terms(NamedTuple):
    """The summands of a cosine: global with global, local with local, global with local, and terms with the bias.

    Those of a part that the network lacks are None.
    """

    global_: float
    local: float | None
    cross: float | None
    bias: float | None


def parts_of(model: DescriptorModel, image: Float[Tensor, "1 3 h w"]) -> Parts | None:
    """The parts of a normalised image's descriptor, float64; None if the fusion mixes them (Hadamard product).

    The last layer is linear, so its outputs for f_g and for the local part are added (Yang et al., ICCV 2021, section
    3). A network without a local branch has no local part.
    """
    with torch.inference_mode():
        if isinstance(model, AdaptedDescriptor):
            parts = parts_of(model.network, image)
            return None if parts is None else _adapted_parts(parts, model.adapter)
        if not isinstance(model, DOLG):
            whole = model(image)[0].double()
            if model.fc is None:
                return Parts(whole, None, None)
            bias = model.fc.bias.double()
            return Parts(whole - bias, None, bias)
        fused = model.fused(model.backbone(image))[0].double()
        weight, bias = model.fc.weight.double(), model.fc.bias.double()
        hidden = model.fc_global.out_features
        if len(fused) != 2 * hidden:
            return None
        return Parts(weight[:, :hidden] @ fused[:hidden], weight[:, hidden:] @ fused[hidden:], bias)


def _adapted_parts(parts: Parts, adapter: nn.Linear) -> Parts:
    """The parts of an adapted descriptor: the adapter is linear in the L2-normalised descriptor.

    The centre that it subtracts belongs to the global part.
    """
    weight = adapter.weight.double() / parts.whole.norm()
    local, bias = (None if part is None else weight @ part for part in (parts.local, parts.bias))
    return Parts(weight @ parts.global_ + adapter.bias.double(), local, bias)


def similarity_terms(a: Parts, b: Parts) -> Terms:
    """The terms of the cosine of two descriptors."""
    norms = float(a.whole.norm() * b.whole.norm())
    local = cross = bias = None
    if a.local is not None and b.local is not None:
        local = float(a.local @ b.local) / norms
        cross = float(a.global_ @ b.local + a.local @ b.global_) / norms
    if a.bias is not None and b.bias is not None:
        bias = float(a.bias @ b.whole + (a.whole - a.bias) @ b.bias) / norms
    return Terms(float(a.global_ @ b.global_) / norms, local, cross, bias)


def for_inference(model: M, precision: str = "32-true") -> M:
    """Prepare a descriptor model for fast inference, in eval mode, with the same results in this precision."""
    # Convolutions are faster with channels last, on CPUs (above all dilated ones) and on tensor cores.
    model = model.eval().to(memory_format=torch.channels_last)
    # In half precision, a folded network rounds differently from the validated one.
    return fuse_batch_norm(model) if precision == "32-true" else model


def trial_size(model: Any, otherwise: tuple[int, int] = (TRIAL, TRIAL)) -> tuple[int, int]:
    """Height and width of an image that a network accepts; `otherwise` if its pooling has no `trial_map`."""
    cells: tuple[int, int] | None = getattr(getattr(model, "pooling", None), "trial_map", None)
    if cells is None:
        return otherwise
    stride = model.backbone.reductions[1]
    return cells[0] * stride, cells[1] * stride


def fuse_batch_norm(model: M) -> M:
    """A copy of a descriptor model for inference, in eval mode, with batch norms folded into the preceding
    convolutions.

    A trial run finds out which batch norm follows which convolution. If the folded network's output differs, an
    unfolded copy is returned. The copy shares no memory with `model`.
    """
    plain = copy.deepcopy(model).eval()
    trial = torch.rand(1, 3, *trial_size(plain), generator=torch.Generator().manual_seed(0))
    trial = trial.to(device_of(plain))
    with torch.inference_mode(False), torch.no_grad():
        pairs, before = _conv_norm_pairs(plain, trial)
        if not pairs:
            return plain
        fused = copy.deepcopy(plain)
        for convolution, norm in pairs:
            _fuse(fused, convolution, norm)
        after = fused(trial)
    return fused if torch.allclose(before, after, rtol=1e-3, atol=1e-4 * float(before.abs().max())) else plain


def _conv_norm_pairs(model: nn.Module, images: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Names of convolutions and of the batch norms that are the only users of their outputs, and the model's output."""
    made: dict[int, str] = {}
    taken: dict[str, list[str]] = {}
    outputs: list[Tensor] = []  # keeps them alive, so that ids are unique

    def note_output(name: str, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)
        made[id(output)] = name

    def note_input(name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs and id(inputs[0]) in made:
            taken.setdefault(made[id(inputs[0])], []).append(name)

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(partial(note_output, name)))
        if not any(module.children()) or isinstance(module, _BatchNorm):
            hooks.append(module.register_forward_pre_hook(partial(note_input, name)))
    try:
        result = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    norms = {name for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    return [(conv, names[0]) for conv, names in taken.items() if len(names) == 1 and names[0] in norms], result


def _fuse(model: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = model.get_submodule(convolution), model.get_submodule(norm)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, _BatchNorm)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    # timm's batch norms include dropout and activation.
    left = [part for name in ("drop", "act") if isinstance(part := getattr(bn, name, None), nn.Module)]
    parent, _, child = norm.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Sequential(*left))

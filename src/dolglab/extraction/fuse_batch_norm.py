"""Batch norms folded into the convolutions before them: the same network, with less to do, for inference."""

from __future__ import annotations

import copy
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

M = TypeVar("M", bound=nn.Module)

# Sides of the trial image, in pixels: every stage keeps a few cells, and transformers accept it.
TRIAL = 224


def for_inference(model: M, precision: str = "32-true") -> M:
    """A descriptor model in eval mode, as fast as it gets with the same results in this precision of Lightning's."""
    # Convolutions on CPUs, dilated ones above all, and on tensor cores are faster with channels last.
    model = model.eval().to(memory_format=torch.channels_last)
    # In half precision a folded network rounds otherwise than the one that was validated.
    return fuse_batch_norm(model) if precision == "32-true" else model


def fuse_batch_norm(model: M) -> M:
    """A copy of a descriptor model for inference, in eval mode, its batch norms folded where they follow a convolution.

    Which follows which is seen in a trial run. A network whose trial gives something else afterwards comes back as it
    was. The copy shares no memory with `model`.
    """
    plain = copy.deepcopy(model).eval()
    trial = torch.rand(1, 3, TRIAL, TRIAL, generator=torch.Generator().manual_seed(0))
    trial = trial.to(next(plain.parameters()).device)
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
    """Names of convolutions and of the batch norms that alone take their outputs, and the model's own output."""
    made: dict[int, str] = {}
    taken: dict[str, list[str]] = {}
    outputs: list[Tensor] = []  # keeps them alive, so that no id is given out twice

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
    # timm's batch norms carry dropout and activation with them.
    left = [part for name in ("drop", "act") if isinstance(part := getattr(bn, name, None), nn.Module)]
    parent, _, child = norm.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Sequential(*left))

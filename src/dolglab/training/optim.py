"""Parameter groups, learning-rate schedules by steps, and the number of steps of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dolglab.errors import UserError


def parameter_groups(
    backbone: Sequence[Sequence[nn.Parameter]],
    new: Sequence[nn.Parameter],
    head_lr_scale: float = 1.0,
    layer_decay: float = 1.0,
    decay_norms: bool = True,
) -> list[dict[str, Any]]:
    """Parameter groups with a factor `lr_scale` on the learning rate; frozen parameters are left out.

    Args:
        backbone: parameters from input to output, one list per level.
        new: the parameters that were not pretrained.
        head_lr_scale: factor for `new`.
        layer_decay: each level's factor is this share of the next level's; 1 gives all levels the same rate.
        decay_norms: False applies no weight decay to norms and biases (parameters of one dimension).

    Raises UserError for a factor that is not above 0, or a layer decay above 1.
    """
    if head_lr_scale <= 0 or not 0 < layer_decay <= 1:
        raise UserError(
            f"optim.head_lr_scale must be above 0 and optim.layer_decay in (0, 1], not {head_lr_scale}, {layer_decay}"
        )
    levels = [("backbone", [p for level in backbone for p in level], 1.0)]
    if layer_decay < 1:
        levels = [(f"level{i}", list(ps), layer_decay ** (len(backbone) - i)) for i, ps in enumerate(backbone)]
    groups = []
    for name, parameters, scale in [*levels, ("new", list(new), head_lr_scale)]:
        trained = [p for p in parameters if p.requires_grad]
        decayed = [p for p in trained if decay_norms or p.ndim > 1]
        flat = [p for p in trained if not decay_norms and p.ndim <= 1]
        groups += [{"params": decayed, "name": name, "lr_scale": scale}] if decayed else []
        groups += [{"params": flat, "name": f"{name}_flat", "lr_scale": scale, "weight_decay": 0.0}] if flat else []
    return groups


def warmup_cosine(
    optimizer: Optimizer, steps: int, warmup: float = 0.0, final: float = 0.0, restart: int = 0
) -> LambdaLR:
    """A linear warm-up, then a cosine decay.

    Args:
        optimizer: its learning rates are the peak values.
        steps: optimizer steps of the whole training.
        warmup: share of the steps for warm-up.
        final: final learning rate as a share of the peak.
        restart: the step at which a first schedule ends and a second one starts; 0 for a single schedule.
    """
    if not 0 <= warmup < 1 or not 0 <= final <= 1:
        raise UserError(f"optim.schedule.warmup and .final must be between 0 and 1, not {warmup} and {final}")

    def factor(step: int) -> float:
        start, end = (0, restart) if step < restart else (restart, steps)
        return cosine_factor(step - start, end - start, round((end - start) * warmup), final)

    return LambdaLR(optimizer, factor)


def lr_factor(rule: object, batch: int, reference: object) -> float:
    """The factor on the learning rate if the global batch is `batch` instead of the recipe's `reference`.

    "linear": batch / reference (Goyal et al., 2017); "sqrt": its square root (Krizhevsky, 2014); None: 1.
    Raises UserError for another rule, or an invalid reference.

    >>> lr_factor("linear", 512, 128), lr_factor("sqrt", 512, 128), lr_factor(None, 512, 128)
    (4.0, 2.0, 1.0)
    """
    if rule not in (None, "linear", "sqrt") or not isinstance(reference, int) or reference < 1:
        raise UserError(
            f"optim.scaling needs rule linear, sqrt or null and a batch of at least 1, not {rule} and {reference}"
        )
    ratio = batch / reference
    return 1.0 if rule is None else ratio if rule == "linear" else math.sqrt(ratio)


def cosine_factor(step: int, steps: int, warmup: int, final: float) -> float:
    """The learning rate at a step, as a share of its peak."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def optimizer_steps(
    batches: int, epochs: int | None, limit: float = 1.0, accumulate: int = 1, max_steps: int = -1
) -> int:
    """The number of optimizer steps of a whole training.

    Lightning's own estimate builds the training loader before a checkpoint has restored the epoch, so a resumed run
    would start with the first epoch's samples.

    Args:
        batches: complete batches of an epoch.
        epochs: `trainer.max_epochs`; -1 or None for no limit.
        limit: `trainer.limit_train_batches`: a share or, as an int, a number of batches.
        accumulate: batches per step; the last step of an epoch may have fewer.
        max_steps: `trainer.max_steps`; -1 for no limit.

    Raises UserError for a training without an end or without batches.

    >>> optimizer_steps(37, epochs=3, accumulate=4)
    30
    """
    used = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
    if used < 1:
        raise UserError(f"trainer.limit_train_batches={limit} leaves none of the {batches} batches of an epoch")
    if epochs is None or epochs < 0:
        if max_steps < 0:
            raise UserError("the schedule needs an end: set trainer.max_epochs or trainer.max_steps")
        return max_steps
    steps = math.ceil(used / accumulate) * epochs
    return steps if max_steps < 0 else min(steps, max_steps)

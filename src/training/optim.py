"""Learning-rate schedules by steps."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from src.contracts import InputError


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: float = 0.0, final: float = 0.0) -> LambdaLR:
    """A linear warm-up, then half a cosine down.

    Args:
        optimizer: its learning rates are the peaks.
        steps: optimizer steps of the whole training.
        warmup: share of the steps that warm up.
        final: last learning rate as a share of the peak.
    """
    if not 0 <= warmup < 1 or not 0 <= final <= 1:
        raise InputError(f"optim.schedule.warmup and .final are shares between 0 and 1, not {warmup} and {final}")
    return LambdaLR(optimizer, lambda step: cosine_factor(step, steps, round(steps * warmup), final))


def cosine_factor(step: int, steps: int, warmup: int, final: float) -> float:
    """The learning rate at a step, as a share of its peak."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

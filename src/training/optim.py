"""Learning-rate schedules by steps, and how many steps a training takes."""

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


def optimizer_steps(batches: int, epochs: int | None, limit: float = 1.0, accumulate: int = 1, most: int = -1) -> int:
    """The optimizer steps of a whole training.

    Lightning's own estimate builds the training loader before a checkpoint has restored the epoch, so that a
    resumed run would begin with the first epoch's samples.

    Args:
        batches: whole batches of an epoch.
        epochs: `trainer.max_epochs`; -1 or None sets no end.
        limit: `trainer.limit_train_batches`: a share, or as an int a number of batches.
        accumulate: batches of one step; the last step of an epoch may have fewer.
        most: `trainer.max_steps`; -1 sets no end.

    Raises:
        InputError: a training without an end, or without a batch.
    """
    taken = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
    if taken < 1:
        raise InputError(f"trainer.limit_train_batches={limit} leaves none of the {batches} batches of an epoch")
    if epochs is None or epochs < 0:
        if most < 0:
            raise InputError("the schedule needs an end: give trainer.max_epochs or trainer.max_steps")
        return most
    steps = math.ceil(taken / accumulate) * epochs
    return steps if most < 0 else min(steps, most)

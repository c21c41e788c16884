"""Training that starts from earlier weights, without their optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from dolglab.errors import UserError
from dolglab.losses.margin import CurricularFace, MarginHead
from dolglab.models.checkpoint import RUN_KEY, check_fit, read_checkpoint
from dolglab.models.dolg import DescriptorModel
from dolglab.models.released import is_released, read_released
from dolglab.models.weights import below, check_finite, read_file, tensors_of


def init_from(
    model: DescriptorModel,
    head: MarginHead,
    source: str,
    classes: Sequence[str],
    parts: Sequence[str] | None = None,
    auxiliary: nn.Module | None = None,
) -> None:
    """Fill a network, and where it fits its head, from `source`; prints what the head starts from.

    Args:
        model: takes every tensor; image sizes may differ, architectures may not.
        head: takes the class centres only when `source` names the same landmarks in the same order, or none, as the
            released weights, but as many; otherwise it stays as it was made.
        source: see `dolglab.models.weights.locate`.
        classes: the landmark of each class.
        parts: take these parts of the network only, such as backbone and pooling, from whatever network they are of;
            the rest and the head stay as they were made.
        auxiliary: what else the classes train, such as the classifier of a local head; taken as the head is.

    Raises UserError as `read_file`, for tensors of another architecture, and where there is no such part.
    """
    stored = read_checkpoint(source) if Path(source).is_dir() else read_file(source)
    tensors = tensors_of(stored, source)
    if is_released(tensors):
        released = read_released(tensors, source)
        network, reason = released.model, ""
        centres = {"weight": released.centres, "mean_cosine": released.mean_cosine}
    else:
        check_finite(tensors, source)
        network, centres = below(tensors, "model.") or dict(tensors), below(tensors, "head.")
        reason = _class_mismatch(stored, classes)
    if parts is not None:
        _load_parts(model, network, source, parts)
        return
    check_fit(model.state_dict(), network, source)
    model.load_state_dict(network)
    if auxiliary is not None and not reason:
        _load_fitting(auxiliary, below(tensors, "auxiliary."))
    reason = reason or _load_centres(head, centres)
    taken = f"its head is not taken: {reason}" if reason else "and the head's class centres"
    rank_zero_only(print)(f"weights from {source}; {taken}")


def _class_mismatch(stored: Any, classes: Sequence[str]) -> str:
    """Why the class centres of a checkpoint do not stand for `classes`; empty if they do, or it names no class."""
    run = stored.get(RUN_KEY) if isinstance(stored, dict) else None
    if not run:
        return "it does not say which landmarks"
    return "" if list(run["classes"]) in ([], list(classes)) else "its landmarks are others"


def _load_parts(model: DescriptorModel, tensors: Mapping[str, Tensor], source: str, parts: Sequence[str]) -> None:
    available = dict(model.named_children())
    for name in parts:
        if name not in available:
            raise UserError(f"weights_parts={name}: the network has no such part, but {', '.join(available)}")
        part = below(tensors, f"{name}.")
        check_fit(available[name].state_dict(), part, f"{source} ({name})")
        available[name].load_state_dict(part)
    rank_zero_only(print)(f"weights from {source}: {', '.join(parts)}; all else starts anew")


def _load_centres(head: MarginHead, stored: Mapping[str, Tensor]) -> str:
    """Copy class centres, and the running mean where both heads have one; or say why they do not fit."""
    weight = stored.get("weight")
    if weight is None or weight.shape != head.weight.shape:
        return "its shape is another"
    head.weight.data.copy_(weight)
    if isinstance(head, CurricularFace) and "mean_cosine" in stored:
        head.mean_cosine.copy_(stored["mean_cosine"])
    return ""


def _load_fitting(module: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Copy what is stored in the same shape; networks without a local head store nothing."""
    state = module.state_dict()
    fitting = {key: value for key, value in stored.items() if key in state and state[key].shape == value.shape}
    module.load_state_dict(state | fitting)

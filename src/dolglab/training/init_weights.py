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
from dolglab.models.released import Released, is_released, read_released
from dolglab.models.weights import below, check_finite, read_file, tensors_of


def warm_start(
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

    Raises:
        UserError: as `read_file`, tensors of another architecture, or no such part.
    """
    stored = read_checkpoint(source) if Path(source).is_dir() else read_file(source)
    tensors = tensors_of(stored, source)
    if is_released(tensors):
        released = read_released(tensors, source)
        own, head_too, why_not = released.model, _centres_of(released), ""
    else:
        check_finite(tensors, source)
        own, head_too = below(tensors, "model.") or dict(tensors), below(tensors, "head.")
        why_not = _why_not(_classes_of(stored), classes)
    if parts is not None:
        _take_parts(model, own, source, parts)
        return
    check_fit(model.state_dict(), own, source)
    model.load_state_dict(own)
    _take_centres(head, head_too, source, why_not)
    if auxiliary is not None and not why_not:
        _take_auxiliary(auxiliary, below(tensors, "auxiliary."))


def _take_parts(model: DescriptorModel, tensors: Mapping[str, Tensor], source: str, parts: Sequence[str]) -> None:
    there = dict(model.named_children())
    for name in parts:
        if name not in there:
            raise UserError(f"weights_parts={name}: the network has no such part, but {', '.join(there)}")
        part = below(tensors, f"{name}.")
        check_fit(there[name].state_dict(), part, f"{source} ({name})")
        there[name].load_state_dict(part)
    rank_zero_only(print)(f"weights from {source}: {', '.join(parts)}; all else starts anew")


def _take_auxiliary(auxiliary: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Copy what is stored in the same shape; networks without a local head store nothing."""
    own = auxiliary.state_dict()
    fitting = {key: value for key, value in stored.items() if key in own and own[key].shape == value.shape}
    auxiliary.load_state_dict(own | fitting)


def _centres_of(released: Released) -> dict[str, Tensor]:
    return {"weight": released.centres, "mean_cosine": released.mean_cosine}


def _classes_of(stored: Any) -> list[str] | None:
    run = stored.get(RUN_KEY) if isinstance(stored, dict) else None
    return list(run["classes"]) if run else None


def _why_not(known: list[str] | None, classes: Sequence[str]) -> str:
    """Why class centres of landmarks `known` (empty where nobody says) do not stand for `classes`; empty if they do."""
    if known is None:
        return "it does not say which landmarks"
    return "" if known in ([], list(classes)) else "its landmarks are others"


def _take_centres(head: MarginHead, stored: Mapping[str, Tensor], source: str, why_not: str) -> None:
    """Copy class centres, and the running mean where both heads have one, unless there is a reason not to."""
    weight = stored.get("weight")
    if not why_not and (weight is None or weight.shape != head.weight.shape):
        why_not = "its shape is another"
    if not why_not and weight is not None:
        head.weight.data.copy_(weight)
        if isinstance(head, CurricularFace) and "mean_cosine" in stored:
            head.mean_cosine.copy_(stored["mean_cosine"])
    head_too = f"its head is not taken: {why_not}" if why_not else "and the head's class centres"
    rank_zero_only(print)(f"weights from {source}; {head_too}")

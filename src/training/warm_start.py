"""Training that starts from earlier weights, without their optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from src.losses.margin import CurricularFace, MarginHead
from src.models.dolg import DescriptorModel
from src.models.released import is_released, read_released
from src.models.weights import check_finite, read_file, tensors_of
from src.training.checkpoints import RUN_KEY, check_fit, read_checkpoint


def warm_start(model: DescriptorModel, head: MarginHead, source: str, classes: Sequence[str]) -> None:
    """Fill a network, and where it fits its head, from `source`; prints what the head starts from.

    Args:
        model: takes every tensor; image sizes may differ, architectures may not.
        head: takes the class centres only when `source` names the same landmarks in the same order, or none, as the
            released weights, but as many; otherwise it stays as it was made.
        source: see `src.models.weights.locate`.
        classes: the landmark of each class.

    Raises:
        InputError: as `read_file`, or tensors of another architecture.
    """
    stored = read_checkpoint(source) if Path(source).is_dir() else read_file(source)
    tensors = tensors_of(stored, source)
    if is_released(tensors):
        _from_released(model, head, tensors, source)
        return
    check_finite(tensors, source)
    own = _below(tensors, "model.") or dict(tensors)
    check_fit(model.state_dict(), own, source)
    model.load_state_dict(own)
    centres = _below(tensors, "head.")
    same = _classes_of(stored) in ([], list(classes)) and _fits(head, centres)
    if same:
        head.load_state_dict(centres)
    _say(source, same)


def _from_released(model: DescriptorModel, head: MarginHead, tensors: dict[str, Tensor], source: str) -> None:
    released = read_released(tensors, source)
    check_fit(model.state_dict(), released.model, source)
    model.load_state_dict(released.model)
    same = head.weight.shape == released.centres.shape
    if same:
        head.weight.data.copy_(released.centres)
    if same and isinstance(head, CurricularFace):
        head.mean_cosine.copy_(released.mean_cosine)
    _say(source, same)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _classes_of(stored: Any) -> list[str] | None:
    run = stored.get(RUN_KEY) if isinstance(stored, dict) else None
    return list(run["classes"]) if run else None


def _fits(head: nn.Module, centres: dict[str, Tensor]) -> bool:
    own = head.state_dict()
    return own.keys() == centres.keys() and all(own[key].shape == centres[key].shape for key in own)


@rank_zero_only
def _say(source: str, same: bool) -> None:
    how = "and the head's class centres" if same else "the head starts anew, for its classes are others"
    print(f"weights from {source}; {how}")

"""A run whose network is a checkpoint's: its configuration, and the checkpoint as what the run is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dolglab.contracts import Ranking
from dolglab.errors import UserError
from dolglab.models.checkpoint import (
    RUN_KEY,
    read_checkpoint,
    read_run,
    safe_config,
    selection_of,
    tensor_file,
    trained_on,
)
from dolglab.results.card import Baseline

FROM_CHECKPOINT = "dolglab.models.checkpoint.trained_network"
# The groups at the root that a network's parts are.
PARTS = ("backbone", "pooling", "local", "fusion")


def with_network(cfg: DictConfig, last: Path | None) -> DictConfig:
    """The configuration with the network of `weights`, where that is asked for (`model=from_checkpoint`).

    Each part stands in its group at the root, with what `cfg` has there on top. A run that goes on from its `last`
    checkpoint has the network of that one. Raises UserError for weights that do not describe a network, and where they
    are gone and are to be tested.
    """
    taken, tested = _from_checkpoint(cfg.model), cfg.test and _from_checkpoint(cfg.get("baseline") or {})
    if not (taken or tested):
        return cfg
    if cfg.weights is None:
        raise UserError("model=from_checkpoint takes the network of weights=CHECKPOINT, which is not given")
    if tested:
        # After the training: better that it is missed now.
        read_run(cfg.weights)
    return _placed(cfg, read_run(last or cfg.weights)["config"]["model"]) if taken else cfg


def _placed(cfg: DictConfig, stored: Mapping[str, Any]) -> DictConfig:
    network = safe_config(stored)
    whole = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    assert isinstance(whole, DictConfig)
    for part in PARTS:
        if part in network:
            whole[part] = OmegaConf.merge(network[part], whole.get(part) or {})
            network[part] = f"${{{part}}}"
    whole.model = network
    return whole


def baseline_of(cfg: DictConfig, rankings: Sequence[Ranking]) -> Baseline:
    """What a run is compared with: the checkpoint it began from, or an untrained network."""
    if not _from_checkpoint(cfg.baseline):
        return Baseline(rankings)
    run = read_checkpoint(cfg.weights)[RUN_KEY]
    method = f"{run['config'].get('name') or Path(cfg.weights).name} (before)"
    return Baseline(rankings, method, tensor_file(cfg.weights), selection_of(cfg.weights), trained_on(run))


def _from_checkpoint(model: Mapping[Any, Any]) -> bool:
    return model.get("_target_") == FROM_CHECKPOINT

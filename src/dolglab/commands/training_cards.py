"""The result cards of a training: of its network, and of the baseline of its test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig

from dolglab.commands.hydra_cli import FROM_CHECKPOINT
from dolglab.contracts import Ranking
from dolglab.data.module import LandmarkDataModule
from dolglab.models.checkpoint import method_of, read_run, selection_of, tensor_file, trained_on
from dolglab.results.card import make_card, protocol
from dolglab.results.tables import Card
from dolglab.training.checkpointing import best_score
from dolglab.training.module import LandmarkModule


def training_card(
    cfg: DictConfig,
    config: Mapping[str, Any],
    data: LandmarkDataModule,
    module: LandmarkModule,
    trainer: L.Trainer,
    rankings: Sequence[Ranking],
    checkpoint: Path | None,
) -> Card:
    """The card of a training's network.

    Args:
        cfg, config: the configuration of the run, and what results keep of it.
        rankings: results of the test; none before it.
        checkpoint: the weights that are tested; None if there are none yet.
    """
    made = protocol(
        cfg.test_scales,
        cfg.resize,
        cfg.scale_pooling,
        data.max_side,
        selection_of(checkpoint) if checkpoint else {},
        cfg.trainer.precision,
        data.reading.orientation,
        data.reading.colour,
    )
    return make_card(
        name=cfg.name,
        method=cfg.method or cfg.name,
        rankings=rankings,
        protocol=made,
        training=trained_on(module.run),
        validation_map=best_score(trainer),
        checkpoint=checkpoint,
        config=config,
    )


def baseline_card(
    cfg: DictConfig, config: Mapping[str, Any], protocol: Mapping[str, object], rankings: Sequence[Ranking]
) -> Card:
    """The card of a run's baseline: the checkpoint that the run started from, or an untrained network.

    The baseline has the run's `protocol`, except for the sets that selected its weights.
    """
    method, selection, checkpoint, training = "untrained ImageNet GeM", {}, None, None
    if cfg.baseline.get("_target_") == FROM_CHECKPOINT:
        before = read_run(cfg.weights)
        method = f"{method_of(before['config']) or Path(cfg.weights).name} (before)"
        selection, checkpoint, training = selection_of(cfg.weights), tensor_file(cfg.weights), trained_on(before)
    return make_card(
        name=f"{cfg.name}/baseline",
        method=method,
        rankings=rankings,
        protocol={**protocol, "selection": dict(selection)},
        training=training,
        checkpoint=checkpoint,
        config=config,
    )

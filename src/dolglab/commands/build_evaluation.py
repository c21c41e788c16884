"""Build an evaluation from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from dolglab.commands.build_training import make_trainer
from dolglab.commands.hydra_cli import as_plain, named
from dolglab.contracts import ExtractionProtocol
from dolglab.errors import UserError
from dolglab.evaluation.evaluator import Evaluator, make_feature_extractor
from dolglab.extraction.descriptor_store import fingerprint
from dolglab.extraction.extractor import PAPER_SCALES
from dolglab.models.checkpoint import load_model, method_of, read_run, selection_of, tensor_file, trained_on, value_at
from dolglab.models.dolg import DescriptorModel
from dolglab.results.card import protocol
from dolglab.retrieval.pipeline import RetrievalPipeline


def assemble_evaluation(cfg: DictConfig) -> tuple[Evaluator, dict[str, Any]]:
    """Build network, trainer and pipeline of `conf/evaluate.yaml`; also returns the other fields of the result card.

    Raises UserError as the parts do.
    """
    _check_sources(cfg)
    model, trained_by = _loaded(cfg.checkpoint, cfg.get("model"))
    # As given, as the checkpoint's run tested, as the network's authors did, or as in the paper.
    known: ExtractionProtocol = getattr(model, "protocol", None) or ExtractionProtocol(PAPER_SCALES)
    before: tuple[Any, ...] = (
        trained_by.get("test_scales", known.scales),
        trained_by.get("resize", known.resize),
        trained_by.get("scale_pooling", known.scale_pooling),
        value_at(trained_by, "data.max_side") or known.max_side,
        value_at(trained_by, "data.orientation") or "exif",
        value_at(trained_by, "data.colour") or "ignore",
    )
    given = (cfg.scales, cfg.resize, cfg.scale_pooling, cfg.max_side, cfg.orientation, cfg.colour)
    scales, resize, scale_pooling, max_side, orientation, colour = (
        a if b == "auto" else b for a, b in zip(before, given, strict=True)
    )
    pipeline = RetrievalPipeline(
        index=instantiate(cfg.index),
        post={name: instantiate(step) for name, step in (cfg.get("post") or {}).items()},
        rerank=None if cfg.get("rerank") is None else instantiate(cfg.rerank),
        aggregate=None if cfg.get("aggregate") is None else instantiate(cfg.aggregate),
        oracle=cfg.oracle,
    )
    if model is not None and cfg.descriptors is None:
        for step in pipeline.adapters:
            # The fingerprint is of the stored network, not of its version for inference.
            step.adapter.check(fingerprint(model), model.dim)
    rescales = model is not None and cfg.descriptors is None and pipeline.aggregate is None
    rescaling = (scales, resize, scale_pooling) if rescales else ((), None, None)
    # Without a network there are only local features that need none.
    local = pipeline.local and (model is not None or _without_network(cfg))
    features = instantiate(cfg.features) if local else None
    trainer = make_trainer(cfg.trainer, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    extractor = make_feature_extractor(
        trainer,
        model,
        features,
        cfg.store,
        scales,
        resize,
        max_side,
        orientation,
        colour,
        cfg.on_error,
        cfg.workers,
        scale_pooling,
    )
    evaluator = Evaluator(
        extractor,
        pipeline,
        learn_on=None if cfg.get("learn_on") is None else instantiate(cfg.learn_on)(),
        external=None if cfg.descriptors is None else Path(cfg.descriptors),
        names=None if cfg.names is None else Path(cfg.names),
    )
    checkpoint = cfg.checkpoint
    selection = selection_of(checkpoint) if checkpoint else {}
    licence = None if model is None else model.backbone.licence
    return evaluator, {
        "method": cfg.method or method_of(trained_by) or _untrained_method(cfg),
        "protocol": protocol(*rescaling, max_side, selection, cfg.trainer.precision, orientation, colour, known.note),
        "checkpoint": tensor_file(checkpoint) if checkpoint else None,
        "training": trained_on(read_run(checkpoint)) if checkpoint else None,
        "config": {"evaluate": as_plain(cfg), "train": trained_by or None, "licence": licence},
    }


def _untrained_method(cfg: DictConfig) -> str:
    """What results call a method that no run here trained: the run's name or, if that is only the date, its source."""
    model = as_plain(cfg).get("model")
    backbone = value_at(model, "backbone.name")
    source = value_at(model, "source") or (backbone and f"untrained {backbone}")
    if cfg.descriptors is not None:
        source = Path(cfg.descriptors).name
    return str(cfg.name if named() or not source else source)


def _check_sources(cfg: DictConfig) -> None:
    """Raise UserError unless there is one thing to evaluate."""
    if cfg.checkpoint is not None and cfg.get("model") is not None:
        raise UserError("set checkpoint=FILE, which contains its model, or model=NAME, not both")
    alone = cfg.get("aggregate") is not None and _without_network(cfg)
    if cfg.checkpoint is None and cfg.get("model") is None and cfg.descriptors is None and not alone:
        raise UserError(
            "set checkpoint=FILE, model=imagenet_gem backbone=NAME (untrained network), model=any model.source=NAME "
            "(external network), descriptors=FILE, or aggregate=asmk features=rootsift (no network)"
        )
    if cfg.names is not None and cfg.descriptors is None:
        raise UserError("names=FILE needs descriptors=FILE")
    if cfg.descriptors is not None and cfg.get("aggregate") is not None:
        raise UserError("aggregate=asmk ranks by local features and takes no descriptors=FILE")


def network(checkpoint: str | Path | None, model: Mapping[str, Any] | None) -> DescriptorModel:
    """The network of a checkpoint or, without one, of a configuration.

    The configuration is built here and not by Hydra, so that no pretrained weights are downloaded for a checkpoint.
    Raises UserError like `load_model` and the model, and without either.
    """
    found, _ = _loaded(checkpoint, model)
    if found is None:
        raise UserError("there is no network to describe the images: set checkpoint=FILE or model=NAME")
    return found


def _loaded(checkpoint: object, model: Mapping[str, Any] | None) -> tuple[DescriptorModel | None, dict[str, Any]]:
    """The network, if any, and the configuration of the run that trained it."""
    # Layers without weights are initialised alike in all processes, and in the next evaluation.
    torch.manual_seed(0)
    if checkpoint is not None:
        return load_model(str(checkpoint))
    return (None if model is None else instantiate(model)), {}


def _without_network(cfg: DictConfig) -> bool:
    return not get_class(cfg.features._target_).needs_network

"""What an evaluation's configuration describes, built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from dolglab.commands.build_training import as_tested, make_trainer
from dolglab.data.datasets import check_whole_images
from dolglab.data.image_reading import checked_reading
from dolglab.errors import UserError
from dolglab.evaluation.evaluator import Evaluator, ExternalDescriptors
from dolglab.evaluation.feature_extractor import FeatureExtractor
from dolglab.extraction.descriptor_store import LocalExtractor
from dolglab.extraction.extract import Images
from dolglab.extraction.extractor import Extractor
from dolglab.extraction.fuse_batch_norm import for_inference
from dolglab.models.checkpoint import load_model, read_run, selection_of, tensor_file, trained_on
from dolglab.models.dolg import DescriptorModel
from dolglab.results.run import protocol
from dolglab.retrieval.pipeline import RetrievalPipeline


@dataclass(frozen=True)
class Plan:
    """An evaluation that is ready to run, and what its result card says besides: see `make_card`."""

    evaluator: Evaluator
    protocol: Mapping[str, object]
    checkpoint: Path | None = None
    training: Mapping[str, object] | None = None
    trained_by: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None


def assemble_evaluation(cfg: DictConfig) -> Plan:
    """Build network, trainer and pipeline of `conf/evaluate.yaml`. Raises UserError as the parts do."""
    _check_sources(cfg)
    model, trained_by = _loaded(cfg.checkpoint, cfg.get("model"))
    model = None if model is None else for_inference(model, str(cfg.trainer.precision))
    scales, resize, max_side, orientation = as_tested(cfg, trained_by)
    check_whole_images(max_side, cfg.on_error)
    checked_reading(orientation, 1)
    pipeline = RetrievalPipeline(
        index=instantiate(cfg.index),
        post={name: instantiate(step) for name, step in (cfg.get("post") or {}).items()},
        rerank=None if cfg.get("rerank") is None else instantiate(cfg.rerank),
        aggregate=None if cfg.get("aggregate") is None else instantiate(cfg.aggregate),
        oracle=cfg.oracle,
    )
    rescaled = model is not None and cfg.descriptors is None and pipeline.aggregate is None
    extractor = FeatureExtractor(
        trainer=make_trainer(cfg.trainer, logger=False, enable_checkpointing=False, enable_progress_bar=False),
        images=Images(max_side, cfg.on_error == "skip", orientation, cfg.workers),
        store=Path(cfg.store),
        extractor=None if model is None else Extractor(model, scales, resize),
        local=_local(cfg, model) if pipeline.local else None,
    )
    external = None if cfg.descriptors is None else Path(cfg.descriptors)
    evaluator = Evaluator(
        extractor,
        pipeline,
        learn_on=None if cfg.get("learn_on") is None else instantiate(cfg.learn_on)(),
        external=external and ExternalDescriptors(external, cfg.names and Path(cfg.names)),
    )
    checkpoint = cfg.checkpoint
    return Plan(
        evaluator,
        protocol(
            scales if rescaled else (),
            resize if rescaled else None,
            max_side,
            selection_of(checkpoint) if checkpoint else {},
            cfg.trainer.precision,
            orientation,
        ),
        checkpoint=tensor_file(checkpoint) if checkpoint else None,
        training=trained_on(read_run(checkpoint)) if checkpoint else None,
        trained_by=trained_by,
        licence=None if model is None else model.backbone.licence,
    )


def _check_sources(cfg: DictConfig) -> None:
    """Raise UserError unless there is one thing to evaluate."""
    if cfg.checkpoint is not None and cfg.get("model") is not None:
        raise UserError("give checkpoint=FILE, which carries its own model, or model=NAME; not both")
    alone = cfg.get("aggregate") is not None and _without_network(cfg)
    if cfg.checkpoint is None and cfg.get("model") is None and cfg.descriptors is None and not alone:
        raise UserError(
            "give checkpoint=FILE, or model=imagenet_gem backbone=NAME for an untrained network, descriptors=FILE for "
            "ready ones, or aggregate=asmk features=rootsift for no network at all"
        )
    if cfg.names is not None and cfg.descriptors is None:
        raise UserError("names=FILE goes with descriptors=FILE")
    if cfg.descriptors is not None and cfg.get("aggregate") is not None:
        raise UserError("aggregate=asmk ranks by local features, not by descriptors=FILE")


def network(checkpoint: str | Path | None, model: Mapping[str, Any] | None) -> DescriptorModel:
    """The network of a checkpoint or, without one, the one that a configuration describes.

    The configuration is built here and no earlier: pretrained weights are not fetched beside a checkpoint.
    Raises UserError as `load_model` and the model do, and where there is neither.
    """
    found, _ = _loaded(checkpoint, model)
    if found is None:
        raise UserError("there is no network to describe the images with: give checkpoint=FILE or model=NAME")
    return found


def _loaded(checkpoint: object, model: Mapping[str, Any] | None) -> tuple[DescriptorModel | None, dict[str, Any]]:
    """The network, where there is one, and the configuration of the run that trained it."""
    # Layers that no weights fill are the same in all processes, and in the next evaluation.
    torch.manual_seed(0)
    if checkpoint is not None:
        return load_model(str(checkpoint))
    return (None if model is None else instantiate(model)), {}


def _local(cfg: DictConfig, model: DescriptorModel | None) -> LocalExtractor | None:
    """What makes local features; None where they would come from a network and there is none."""
    if model is None and not _without_network(cfg):
        return None
    return instantiate(cfg.features)(model)


def _without_network(cfg: DictConfig) -> bool:
    return not get_class(cfg.features._target_).needs_network

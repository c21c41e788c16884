"""Evaluate a checkpoint, or an untrained network, on a benchmark: table, result card, page."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from src.cli import one_line_errors, settle_process


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
@one_line_errors
def main(cfg: DictConfig) -> float:
    """Run `cfg.benchmark` and return its first figure: Medium mAP, or of GLDv2 the Public one."""
    settle_process()
    from hydra.utils import instantiate

    from src.assemble import as_tested
    from src.cli import as_plain, claim_run, record_run
    from src.contracts import InputError
    from src.data.module import LandmarkDataModule
    from src.results.figures import shown_difficulty
    from src.results.run import finish_run, protocol
    from src.training.checkpoints import load_model, read_run, selection_of, tensor_file, trained_on
    from src.training.evaluation import ExtractionOptions, RetrievalModule, run_test

    if (cfg.checkpoint is None) == (cfg.get("model") is None):
        raise InputError(
            "give checkpoint=FILE, which carries its own model, or model=imagenet_gem backbone=NAME for an "
            "untrained one; not both"
        )
    run = claim_run(cfg)
    if cfg.checkpoint is None:
        model, trained_by = instantiate(cfg.model), {}
    else:
        model, trained_by = load_model(cfg.checkpoint)
    scales, resize, max_side, orientation = as_tested(cfg, trained_by)
    benchmark = instantiate(cfg.benchmark)()
    reading = {"max_side": max_side, "orientation": orientation, "on_error": cfg.on_error}
    data = LandmarkDataModule(None, [], [benchmark], workers=cfg.workers, **reading)
    options = ExtractionOptions(scales, resize, instantiate(cfg.index))
    trainer = instantiate(
        cfg.trainer, logger=False, enable_checkpointing=False, enable_progress_bar=sys.stdout.isatty()
    )
    rankings = run_test(trainer, data, RetrievalModule(model, test=options))
    selection = selection_of(cfg.checkpoint) if cfg.checkpoint else {}
    if trainer.is_global_zero:
        record_run(run, cfg)
        finish_run(
            run,
            name=cfg.name,
            method=cfg.method or cfg.name,
            rankings=rankings,
            protocol=protocol(scales, resize, max_side, selection, cfg.trainer.precision, orientation),
            checkpoint=tensor_file(cfg.checkpoint) if cfg.checkpoint else None,
            training=trained_on(read_run(cfg.checkpoint)) if cfg.checkpoint else None,
            config={"evaluate": as_plain(cfg), "train": trained_by or None, "licence": model.backbone.licence},
        )
    return rankings[0].evaluation[shown_difficulty(rankings[0])]["map"]


if __name__ == "__main__":
    main()

"""Evaluate a checkpoint, or an untrained network, on a benchmark: table, result card, page."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from src.cli import one_line_errors, settle_process


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
@one_line_errors
def main(cfg: DictConfig) -> float:
    """Run `cfg.benchmark` and return its Medium mAP."""
    settle_process()
    from pathlib import Path

    from hydra.utils import instantiate

    from src.cli import as_plain, claim_run, record_run
    from src.contracts import InputError
    from src.data.module import LandmarkDataModule
    from src.results.run import finish_run, protocol
    from src.training.checkpoints import load_model
    from src.training.evaluation import ExtractionOptions, RetrievalModule

    if (cfg.checkpoint is None) == (cfg.get("model") is None):
        raise InputError(
            "give checkpoint=FILE, which carries its own model, or model=imagenet_gem backbone=NAME for an "
            "untrained one; not both"
        )
    run = claim_run(cfg)
    benchmark = instantiate(cfg.benchmark)()
    if cfg.checkpoint is None:
        model, trained_by = instantiate(cfg.model), None
    else:
        model, trained_by = load_model(cfg.checkpoint)
    data = LandmarkDataModule(None, [], [benchmark], workers=cfg.workers, max_side=cfg.max_side, on_error=cfg.on_error)
    options = ExtractionOptions(cfg.scales, cfg.resize, instantiate(cfg.index))
    trainer = instantiate(
        cfg.trainer, logger=False, enable_checkpointing=False, enable_progress_bar=sys.stdout.isatty()
    )
    record_run(run, cfg)
    module = RetrievalModule(model, test=options)
    trainer.test(module, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        finish_run(
            run,
            name=cfg.name,
            method=cfg.method or cfg.name,
            rankings=module.rankings,
            protocol=protocol(cfg.crop, cfg.scales, cfg.resize, cfg.max_side, (trained_by or {}).get("selection")),
            checkpoint=Path(cfg.checkpoint) if cfg.checkpoint else None,
            config={"evaluate": as_plain(cfg), "train": trained_by},
        )
    return module.rankings[0].evaluation["medium"]["map"]


if __name__ == "__main__":
    main()

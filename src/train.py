"""Train a descriptor model: `python -m src.train backbone=r101 trainer.devices=8`."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from src.cli import one_line_errors, settle_process


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
@one_line_errors
def main(cfg: DictConfig) -> float | None:
    """Fit, test the chosen checkpoint once, report; returns the best validation Medium mAP."""
    settle_process()
    import lightning as L
    from hydra.utils import instantiate

    from src.cli import as_plain, claim_run, main_process, record_run, resume_point, resumed_config
    from src.data.sources import checked_seed
    from src.results.run import finish_run, protocol
    from src.training.callbacks import best_score, callbacks, chosen_checkpoint
    from src.training.checkpoint_io import AtomicCheckpointIO
    from src.training.checkpoints import check_resumable, describe_run, selection_of
    from src.training.evaluation import ExtractionOptions, RetrievalModule, run_test
    from src.training.module import LandmarkModule, check_trainer

    cfg = resumed_config(cfg)
    run = claim_run(cfg)
    L.seed_everything(checked_seed(cfg.seed), workers=True, verbose=False)
    augmentation = instantiate(cfg.augment)
    data = instantiate(cfg.data, augmentation=augmentation)
    model = instantiate(cfg.model)
    config = as_plain(cfg)
    index = instantiate(cfg.index)
    about = describe_run(config, data.training.classes.tolist(), data.digests())
    test = ExtractionOptions(cfg.test_scales, cfg.resize, index)
    module = LandmarkModule(
        model,
        instantiate(cfg.margin, dim=model.dim, num_classes=data.num_classes),
        augmentation,
        instantiate(cfg.optim.optimizer),
        instantiate(cfg.optim.schedule),
        head_lr_scale=cfg.optim.head_lr_scale,
        run=about,
        validation=ExtractionOptions(cfg.scales, cfg.resize, index),
        test=test,
    )
    loggers = list(instantiate(cfg.logger).values())
    watching = callbacks(run, validates=bool(data.validation), logs=bool(loggers))
    progress = sys.stdout.isatty()
    saving = [AtomicCheckpointIO()]
    check_trainer(cfg.trainer.precision, cfg.trainer.max_epochs, cfg.trainer.max_steps)
    trainer = instantiate(cfg.trainer, logger=loggers, callbacks=watching, enable_progress_bar=progress, plugins=saving)
    last = resume_point(cfg)
    if last:
        check_resumable(last, module, about)
    if main_process():
        data.check(trainer.world_size)
    record_run(run, cfg)
    trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    chosen = chosen_checkpoint(run)
    rankings, baseline = run_test(trainer, data, module, chosen), []
    if cfg.get("baseline"):
        reference = RetrievalModule(instantiate(cfg.baseline), test=test, prefix="baseline/")
        baseline = run_test(trainer, data, reference)
    if trainer.is_global_zero:
        finish_run(
            run,
            name=cfg.name,
            method=cfg.method or cfg.name,
            rankings=rankings,
            baseline=baseline,
            protocol=protocol(cfg.test_scales, cfg.resize, data.max_side, selection_of(chosen)),
            checkpoint=chosen,
            config=config,
        )
    return best_score(trainer)


if __name__ == "__main__":
    main()

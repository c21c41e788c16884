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

    from src.assemble import assemble, trained_protocol
    from src.cli import claim_run, main_process, record_run, resume_point, resumed_config
    from src.data.sources import checked_seed
    from src.results.run import finish_run
    from src.training.callbacks import best_score, callbacks, chosen_checkpoint
    from src.training.checkpoint_io import AtomicCheckpointIO
    from src.training.checkpoints import check_resumable, selection_of, trained_on
    from src.training.evaluation import RetrievalModule, run_test

    cfg = resumed_config(cfg)
    run = claim_run(cfg)
    L.seed_everything(checked_seed(cfg.seed), workers=True, verbose=False)
    last = resume_point(cfg)
    data, module, config = assemble(cfg, resumed=last is not None)
    loggers = list(instantiate(cfg.logger).values())
    trainer = instantiate(
        cfg.trainer,
        max_steps=-1,
        logger=loggers,
        callbacks=callbacks(
            run,
            validates=bool(data.validation),
            logs=bool(loggers),
            ema=cfg.ema,
            every=(cfg.checkpoint_minutes, cfg.checkpoint_steps),
            max_steps=cfg.trainer.max_steps,
        ),
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=sys.stdout.isatty(),
    )
    if last:
        check_resumable(last, module, module.run)
    if main_process():
        data.check(trainer.world_size)
        print(f"backbone {cfg.backbone.name}, licence of its weights: {config['licence'] or 'not stated'}")
    record_run(run, cfg)
    trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    chosen = chosen_checkpoint(run)
    rankings, baseline = run_test(trainer, data, module, chosen), []
    if cfg.get("baseline"):
        reference = RetrievalModule(instantiate(cfg.baseline), test=module.test_options, prefix="baseline/")
        baseline = run_test(trainer, data, reference)
    if trainer.is_global_zero:
        finish_run(
            run,
            name=cfg.name,
            method=cfg.method or cfg.name,
            rankings=rankings,
            baseline=baseline,
            protocol=trained_protocol(cfg, data, selection_of(chosen)),
            training=trained_on(module.run),
            checkpoint=chosen,
            config=config,
        )
    return best_score(trainer)


if __name__ == "__main__":
    main()

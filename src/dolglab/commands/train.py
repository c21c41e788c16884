"""Train a descriptor model: `dolglab train backbone=r101 trainer.devices=8`."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from dolglab.commands.hydra_cli import configure_process, hydra_main, in_sweep
from dolglab.errors import UserError
from dolglab.processes import CARD, LAST, main_process, watch_parent


@hydra_main("train")
def main(cfg: DictConfig) -> float | None:
    """Train, test the best checkpoint once and write the report; returns the best validation mAP (Medium)."""
    configure_process()
    if in_sweep():
        from dolglab.sweeps.jobs import sweep_job

        return sweep_job(str(cfg.name), group=str(cfg.name))
    watch_parent()
    import lightning as L
    from hydra.utils import instantiate

    from dolglab.commands.build_training import assemble, build_trainer, with_network
    from dolglab.commands.hydra_cli import claim_run, record_run, resume_point, resumed_config
    from dolglab.commands.training_cards import baseline_card, training_card
    from dolglab.data.sources import checked_seed
    from dolglab.models.checkpoint import changes, check_resumable, load_model
    from dolglab.results.report import finish_run, write_unfinished
    from dolglab.training.checkpointing import best_score, checkpoints_of, progress_line, resume_line
    from dolglab.training.final_test import run_test
    from dolglab.training.pooling_start import start_pooling
    from dolglab.training.retrieval_module import ExtractionOptions
    from dolglab.training.wandb_logging import WandbLog

    cfg = resumed_config(cfg)
    run = claim_run(Path(cfg.output_dir), str(cfg.name), cfg.resume)
    L.seed_everything(checked_seed(cfg.seed), workers=True, verbose=False)
    last = resume_point(run) if cfg.resume else None
    cfg = with_network(cfg, last)
    # Needed after the last step, but checked before the first.
    options = ExtractionOptions(cfg.test_scales, cfg.resize, instantiate(cfg.index), cfg.scale_pooling)
    data, module, config = assemble(cfg, resumed=last is not None)
    pooling_is_new = cfg.weights is None or "pooling" not in (cfg.weights_parts or ["pooling"])
    if last is None and pooling_is_new:
        start_pooling(module.model, data)
    trainer = build_trainer(cfg, run, validates=bool(data.validation))
    if last:
        check_resumable(last, module, module.run)
    if main_process():
        if last:
            print(resume_line(last, cfg.trainer.max_epochs, cfg.trainer.max_steps))
            if changed := changes(last, module.run):
                print("resumed with other settings:", "; ".join(changed))
        data.check(trainer.world_size)
        print(f"backbone {module.model.backbone.name}, licence of its weights: {config['licence'] or 'not stated'}")
    record_run(run, cfg)
    boards = [log for log in trainer.loggers if isinstance(log, WandbLog)]
    if trainer.is_global_zero:
        for board in boards:
            board.experiment.config.update(config, allow_val_change=True)

    card_of = partial(training_card, cfg, config, data, module, trainer)

    def write_curves() -> Path | None:
        if not main_process():
            return None
        return write_unfinished(run, card_of([], checkpoints_of(run).get("last")), progress_line(trainer))

    store, rankings, pictures, before = Path(cfg.store), [], [], []
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
        if data.test:
            # For a run that is killed during its test.
            write_curves()
        checkpoints = checkpoints_of(run)
        # The best on validation, or the last without validation.
        chosen = checkpoints.get("best", run / LAST)
        if data.test:
            tested = load_model(chosen)[0]
            rankings, pictures = run_test(
                trainer, data, tested, options, store, checkpoint=chosen, pictures=cfg.pictures
            )
        if cfg.get("baseline") and data.test:
            reference = instantiate(cfg.baseline).eval()
            before, _ = run_test(trainer, data, reference, options, store, stage="baseline/test")
    except (SystemExit, KeyboardInterrupt, UserError):
        # Whoever sent a signal may not wait long, so nothing is tested. A second error must not hide the first.
        with contextlib.suppress(OSError, UserError):
            if page := write_curves():
                print(f"page: {page}")
        raise
    if trainer.is_global_zero:
        card = card_of(rankings, chosen)
        baseline = (baseline_card(cfg, config, card["protocol"], before), before) if before else None
        finish_run(run, card, rankings, baseline, pictures)
        for board in boards:
            board.log_results(run / CARD, checkpoints)
            board.say_where()
    return best_score(trainer)


if __name__ == "__main__":
    main()

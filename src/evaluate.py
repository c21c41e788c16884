"""Evaluate a checkpoint, an untrained network or anyone's descriptors on a benchmark: table, result card, page."""

from __future__ import annotations

from omegaconf import DictConfig

from src.cli import hydra_main, settle_process
from src.processes import watch_parent


@hydra_main("evaluate")
def main(cfg: DictConfig) -> float | None:
    """Run `cfg.benchmark` and return its first figure: Medium mAP, or of GLDv2 the Public one."""
    settle_process()
    watch_parent()
    from hydra.utils import instantiate

    from src.assemble_evaluation import assemble_evaluation
    from src.cli import as_plain
    from src.evaluation.pictures import pictures_of
    from src.results.figures import shown_difficulty
    from src.results.run import finish_run
    from src.run_folder import claim_run, record_run

    run = claim_run(cfg)
    plan = assemble_evaluation(cfg)
    benchmark = instantiate(cfg.benchmark)()
    ranking = plan.evaluator.run(benchmark)
    if ranking is None:
        return None
    pictures = pictures_of(plan.evaluator, ranking, cfg.pictures)
    record_run(run, cfg)
    plan.evaluator.method.save(run)
    finish_run(
        run,
        name=cfg.name,
        method=cfg.method or cfg.name,
        rankings=[ranking],
        protocol=plan.protocol,
        checkpoint=plan.checkpoint,
        training=plan.training,
        config={"evaluate": as_plain(cfg), "train": plan.trained_by or None, "licence": plan.licence},
        pictures=pictures,
    )
    return ranking.evaluation[shown_difficulty(ranking)]["map"]


if __name__ == "__main__":
    main()

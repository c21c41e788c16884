"""Evaluate a checkpoint, an untrained network or anyone's descriptors on a benchmark: table, result card, page."""

from __future__ import annotations

from omegaconf import DictConfig

from dolglab.commands.hydra_cli import configure_process, hydra_main
from dolglab.processes import watch_parent


@hydra_main("evaluate")
def main(cfg: DictConfig) -> float | None:
    """Run `cfg.benchmark` and return its first figure: Medium mAP, or of GLDv2 the Public one."""
    configure_process()
    watch_parent()
    from hydra.utils import instantiate

    from dolglab.commands.build_evaluation import assemble_evaluation
    from dolglab.commands.hydra_cli import as_plain
    from dolglab.commands.run_folder import claim_run, record_run
    from dolglab.evaluation.pictures import pictures_of
    from dolglab.results.pictures import shown_difficulty
    from dolglab.results.run import finish_run

    run = claim_run(cfg)
    plan = assemble_evaluation(cfg)
    benchmark = instantiate(cfg.benchmark)()
    ranking = plan.evaluator.run(benchmark)
    if ranking is None:
        return None
    pictures = pictures_of(plan.evaluator, ranking, cfg.pictures)
    record_run(run, cfg)
    plan.evaluator.pipeline.save(run)
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

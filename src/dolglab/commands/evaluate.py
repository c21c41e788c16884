"""Evaluate a checkpoint, an untrained network or existing descriptors on a benchmark: table, result card, report.

With `--multirun`, models are evaluated on benchmarks (a suite); each cell is its own run in its own process.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from dolglab.commands.hydra_cli import chosen, claim_run, configure_process, hydra_main, in_sweep, record_run
from dolglab.errors import UserError
from dolglab.processes import watch_parent


@hydra_main("evaluate")
def main(cfg: DictConfig) -> float | None:
    """Evaluate `cfg.benchmark` and return its main figure: Medium mAP if it has one, otherwise the first figure."""
    configure_process()
    if in_sweep() and not cfg.plan:
        from dolglab.sweeps.jobs import sweep_job
        from dolglab.sweeps.starting import EVALUATE

        return sweep_job(str(cfg.name), EVALUATE)
    watch_parent()
    if chosen("suite") and not in_sweep():
        raise UserError("a suite has several runs: suite=NAME needs -m, and name=NAME for its folder")
    from hydra.utils import instantiate

    from dolglab.commands.build_evaluation import assemble_evaluation
    from dolglab.evaluation.evaluator import pictures_of
    from dolglab.results.card import make_card
    from dolglab.results.pictures import shown_difficulty
    from dolglab.results.report import finish_run

    if cfg.plan:
        return print_plan(cfg)
    run = claim_run(Path(cfg.output_dir), str(cfg.name))
    evaluator, about = assemble_evaluation(cfg)
    ranking = evaluator.run(instantiate(cfg.benchmark)())
    if ranking is None:
        return None
    pictures = pictures_of(evaluator, ranking, cfg.pictures)
    record_run(run, cfg)
    evaluator.pipeline.save(run)
    card = make_card(name=cfg.name, method=cfg.method or cfg.name, rankings=[ranking], **about)
    finish_run(run, card, [ranking], pictures=pictures)
    return ranking.evaluation[shown_difficulty(ranking)]["map"]


def print_plan(cfg: DictConfig) -> None:
    """Print what an evaluation still has to do. A refused cell of a suite is reported, and the plan continues."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from dolglab.commands.build_evaluation import assemble_evaluation
    from dolglab.evaluation.plan import plan, total
    from dolglab.sweeps.jobs import SweepReport

    if in_sweep():
        print(f"{HydraConfig.get().job.num}: {HydraConfig.get().job.override_dirname}")
    try:
        works = plan(assemble_evaluation(cfg)[0], instantiate(cfg.benchmark)())
    except UserError as error:
        if not in_sweep():
            raise
        print(f"  not planned: {error}")
        return
    for work in works:
        print(f"  {work.line()}")
    SweepReport.planned += works
    if not in_sweep():
        print(total(works))


if __name__ == "__main__":
    main()

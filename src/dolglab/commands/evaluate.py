"""Evaluate a checkpoint, an untrained network or anyone's descriptors on a benchmark: table, result card, page."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from dolglab.commands.hydra_cli import claim_run, configure_process, hydra_main, record_run
from dolglab.processes import watch_parent


@hydra_main("evaluate")
def main(cfg: DictConfig) -> float | None:
    """Run `cfg.benchmark` and return its first figure: Medium mAP, or of GLDv2 the Public one."""
    configure_process()
    watch_parent()
    from hydra.utils import instantiate

    from dolglab.commands.build_evaluation import assemble_evaluation
    from dolglab.evaluation.evaluator import pictures_of
    from dolglab.results.card import make_card
    from dolglab.results.pictures import shown_difficulty
    from dolglab.results.report import finish_run

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


if __name__ == "__main__":
    main()

"""Evaluate a checkpoint, an untrained network or existing descriptors on a benchmark: table, result card, report.

With `--multirun`, models are evaluated on benchmarks (a suite); each cell is its own run in its own process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from dolglab.commands.hydra_cli import (
    chosen,
    claim_run,
    configure_process,
    drop_empty_run,
    hydra_main,
    in_sweep,
    record_run,
)
from dolglab.errors import UserError
from dolglab.processes import main_process, watch_parent

if TYPE_CHECKING:
    from dolglab.contracts import Benchmark
    from dolglab.extraction.external import AlignedDescriptors


@hydra_main("evaluate")
def main(cfg: DictConfig) -> float | None:
    """Evaluate `cfg.benchmark` and return its main figure: Medium mAP if it has one, otherwise the first figure."""
    configure_process()
    if cfg.write_names is not None and in_sweep():
        raise UserError("write_names=FILE lists the images of one benchmark: leave out -m")
    if in_sweep() and not cfg.plan:
        from dolglab.sweeps.jobs import sweep_job
        from dolglab.sweeps.starting import EVALUATE

        return sweep_job(str(cfg.name), EVALUATE)
    watch_parent()
    if chosen("suite") and not in_sweep():
        raise UserError("a suite has several runs: suite=NAME needs -m, and name=NAME for its folder")
    if cfg.plan:
        return print_plan(cfg)
    from hydra.utils import instantiate

    benchmark: Callable[[], Benchmark] = cache(instantiate(cfg.benchmark))
    if cfg.write_names is not None:
        return write_image_names(cfg, benchmark())
    run = claim_run(Path(cfg.output_dir), str(cfg.name))
    # A file that does not fit is refused before torch is imported and a network is loaded.
    given = read_given(cfg, benchmark)

    from dolglab.commands.build_evaluation import assemble_evaluation
    from dolglab.evaluation.evaluator import pictures_of
    from dolglab.results.card import make_card
    from dolglab.results.pictures import shown_difficulty
    from dolglab.results.report import finish_run

    evaluator, about = assemble_evaluation(cfg)
    ranking = evaluator.run(benchmark(), given)
    if ranking is None:
        return None
    pictures = pictures_of(evaluator, ranking, cfg.pictures)
    record_run(run, cfg)
    evaluator.pipeline.save(run)
    card = make_card(name=cfg.name, rankings=[ranking], **about)
    finish_run(run, card, [ranking], pictures=pictures)
    return ranking.evaluation[shown_difficulty(ranking)]["map"]


def read_given(cfg: DictConfig, benchmark: Callable[[], Benchmark]) -> AlignedDescriptors | None:
    """The descriptors in the file `cfg.descriptors`, in the main process; None without one, and for a kept store.

    Raises UserError like `read_descriptors`.
    """
    if cfg.descriptors is None or Path(cfg.descriptors).is_dir() or not main_process():
        return None
    from dolglab.extraction.external import read_descriptors

    return read_descriptors(cfg.descriptors, benchmark(), cfg.names)


def write_image_names(cfg: DictConfig, benchmark: Benchmark) -> None:
    """Write the names of a benchmark's images to the file `cfg.write_names`, and print what their order is."""
    if not main_process():
        return
    from dolglab.extraction.external import write_names

    path, images, gallery = Path(cfg.write_names), len(benchmark.source), benchmark.num_gallery
    write_names(path, benchmark)
    queries = f"then {images - gallery:,} queries" if images > gallery else "the queries are among them"
    print(f"{path}: the {images:,} images of {benchmark.name}, {gallery:,} in the gallery, {queries}")
    drop_empty_run(cfg)


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

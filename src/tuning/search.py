"""A worker of a search: trials, one after another, until the study has enough."""

from __future__ import annotations

from collections.abc import Sequence

from src.contracts import InputError
from src.sweeps.table import write_table
from src.tuning.chart import write_chart
from src.tuning.study import SharedStudy
from src.tuning.trial import run_trial


def run_search(study: SharedStudy, train: Sequence[str], trials: int) -> float:
    """Work on a study until it has `trials`, with a line for each; returns the best validation mAP.

    Raises InputError where no trial came to a result.
    """
    while (trial := study.next(trials)) is not None:
        job = run_trial(study, trial, train)
        write_chart(study.trials, study.space, study.folder)
        figure = job.reason if job.score is None else f"{100 * job.score:.2f}"
        print(f"trial {job.folder.name}: {figure}{_so_far(study)}", flush=True)
    if study.running:
        print(f"{study.running} trials are still run by other processes")
    best, table = study.best, write_table(study.folder)
    if best is None and study.running:
        raise InputError("there is no result yet")
    if best is None or best.value is None:
        raise InputError(f"none of the {len(study.trials)} trials came to a result: {table} says why")
    settings = " ".join(f"{key}={value}" for key, value in best.params.items())
    print(f"best of {len(study.trials)} trials ({table}): {100 * best.value:.2f} with {settings}")
    return best.value


def _so_far(study: SharedStudy) -> str:
    best = study.best
    return "" if best is None else f" (best: {100 * (best.value or 0):.2f}, trial {best.number})"

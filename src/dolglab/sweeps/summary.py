"""The results of a sweep: a table of all jobs, and a chart (a line over one setting, or a heat map over two)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.io import csv_text, write_text
from dolglab.processes import CARD
from dolglab.results.card import read_card
from dolglab.sweeps.drawing import BLUE, INK, frames, svg_file

JOB, TABLE, COMPARISON = "job.json", "sweep.csv", "comparison.svg"
# Means are taken over these keys.
REPEATED = ("seed",)


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        folder: the run's folder.
        swept: the overrides that differ between jobs, by key.
        status: "done", "failed", or "pruned" by a search.
        reason: why it is not done.
        score: best validation mAP, as a fraction; None without validation.
        tests: mAP by benchmark and difficulty, as fractions.
    """

    folder: Path
    swept: dict[str, str]
    status: str
    reason: str = ""
    score: float | None = None
    tests: dict[str, float] = field(default_factory=dict)


def read_job(folder: Path) -> Job:
    """The outcome of a job; it counts as failed if its card cannot be read or was edited."""
    about = json.loads((folder / JOB).read_text(encoding="utf-8"))
    job = {"folder": folder, "swept": about["swept"], "status": about["status"], "reason": about["reason"]}
    if about["status"] != "done":
        return Job(**job)
    try:
        card = read_card(folder / CARD)
    except UserError as error:
        return Job(**{**job, "status": "failed", "reason": str(error)})
    tests = {
        f"{part['name']} {difficulty}": value
        for part in card["benchmarks"]
        for difficulty, value in part["map"].items()
        if value is not None
    }
    return Job(**job, score=card.get("validation_map"), tests=tests)


def read_jobs(sweep: Path) -> list[Job]:
    """The jobs in a sweep's folder, in numerical order."""
    folders = {path.parent.name: path.parent for path in sorted(sweep.glob(f"*/{JOB}"))}
    return [read_job(folders[name]) for name in sorted(folders, key=lambda name: _order(name.split("_", 1)[0]))]


def write_table(sweep: Path) -> Path:
    """Write `sweep.csv`: folder, settings, status, mAP on validation and test in percent, and reason."""
    jobs = read_jobs(sweep)
    keys = list(dict.fromkeys(key for job in jobs for key in job.swept))
    tests = list(dict.fromkeys(name for job in jobs for name in job.tests))
    rows = [["job", *keys, "status", "validation", *tests, "reason"]]
    for job in jobs:
        figures = [job.score, *(job.tests.get(name) for name in tests)]
        percent = ["" if figure is None else f"{100 * figure:.2f}" for figure in figures]
        row = [job.swept.get(key, "") for key in keys]
        rows.append([job.folder.name, *row, job.status, *percent, job.reason])
    return write_text(sweep / TABLE, csv_text(rows))


def write_comparison(jobs: Sequence[Job], sweep: Path) -> Path | None:
    """Draw the validation mAP of jobs over the varied settings, as means over seeds.

    One setting gives a line with a dot for each job. More settings give a heat map of the first two, in which each cell
    is the best mean over the others. Returns the file, or None if nothing was varied or validated.
    """
    scored = [job for job in jobs if job.score is not None]
    keys = [key for key in _varied(scored) if key not in REPEATED]
    if not keys:
        return None
    note = "validation mAP (Medium), %" + (", mean over seeds" if "seed" in _varied(scored) else "")
    if len(keys) > 2:
        note += f", best over {', '.join(keys[2:])}"
    figure = _line(scored, keys[0]) if len(keys) == 1 else _heat_map(scored, keys)
    return write_text(sweep / COMPARISON, svg_file(figure, sweep.name, note))


def means(jobs: Iterable[Job], keys: Sequence[str]) -> dict[tuple[str, ...], float]:
    """Mean score in percent by the values of `keys`."""
    found: dict[tuple[str, ...], list[float]] = {}
    for job in jobs:
        if job.score is not None:
            found.setdefault(tuple(job.swept.get(key, "") for key in keys), []).append(100 * job.score)
    return {values: float(np.mean(scores)) for values, scores in found.items()}


def best_means(jobs: Sequence[Job], keys: Sequence[str]) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Values of the first two keys, and the best mean for each pair (rows: first key); NaN if there is no score."""
    cells: dict[tuple[str, str], float] = {}
    for values, mean in means(jobs, keys).items():
        pair = values[0], values[1]
        cells[pair] = max(mean, cells.get(pair, -np.inf))
    down, across = (sorted({pair[place] for pair in cells}, key=_order) for place in (0, 1))
    return down, across, np.array([[cells.get((row, column), np.nan) for column in across] for row in down])


def _line(jobs: Sequence[Job], key: str) -> Figure:
    values = sorted({job.swept.get(key, "") for job in jobs}, key=_order)
    figure, (axes,) = frames([key], "", (4.4, 2.6))
    for job in jobs:
        axes.plot(values.index(job.swept.get(key, "")), 100 * (job.score or 0), "o", color=BLUE, markersize=4)
    mean = means(jobs, [key])
    axes.plot(range(len(values)), [mean[(value,)] for value in values], color=BLUE)
    axes.set_xticks(range(len(values)), values)
    return figure


def _heat_map(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    down, across, cells = best_means(jobs, keys)
    figure, (axes,) = frames([keys[1]], keys[0], (1.6 + 0.8 * len(across), 1.1 + 0.5 * len(down)))
    axes.grid(False)
    axes.imshow(cells, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            ink = "#ffffff" if value > middle else INK
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink)
    return figure


def _varied(jobs: Sequence[Job]) -> list[str]:
    """The keys with more than one value."""
    keys = dict.fromkeys(key for job in jobs for key in job.swept)
    return [key for key in keys if len({job.swept.get(key, "") for job in jobs}) > 1]


def _order(value: str) -> tuple[int, float, str]:
    """A sort key: numbers by size, then words alphabetically."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    return (0, number, "") if math.isfinite(number) else (1, 0.0, value)

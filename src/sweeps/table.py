"""What the jobs of a sweep came to: `sweep.csv`, a row a job."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.files import write_text
from src.results.card import read_card
from src.run_folder import CARD

JOB, TABLE = "job.json", "sweep.csv"


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        folder: its run's.
        swept: what differs between the jobs: overrides by key.
        status: "done", "failed", or "pruned" by a search.
        reason: why it is not done.
        score: best validation mAP, a fraction; None where nothing validated.
        tests: mAP by benchmark and difficulty, fractions.
    """

    folder: Path
    swept: dict[str, str]
    status: str
    reason: str = ""
    score: float | None = None
    tests: dict[str, float] = field(default_factory=dict)


def read_job(folder: Path) -> Job:
    """What became of a job. Raises InputError for a damaged card."""
    about = json.loads((folder / JOB).read_text(encoding="utf-8"))
    job = {"folder": folder, "swept": about["swept"], "status": about["status"], "reason": about["reason"]}
    if about["status"] != "done":
        return Job(**job)
    card = read_card(folder / CARD)
    tests = {
        f"{part['name']} {difficulty}": value
        for part in card["benchmarks"]
        for difficulty, value in part["map"].items()
        if value is not None
    }
    return Job(**job, score=card.get("validation_map"), tests=tests)


def read_jobs(sweep: Path) -> list[Job]:
    """The jobs below a sweep's folder, in their order."""
    folders = [path.parent for path in sweep.glob(f"*/{JOB}")]
    return [read_job(folder) for folder in sorted(folders, key=_number)]


def write_table(sweep: Path) -> Path:
    """Write `sweep.csv`: folder, what differs, status, mAP on validation and test in percent, why it is not done."""
    jobs = read_jobs(sweep)
    keys = list(dict.fromkeys(key for job in jobs for key in job.swept))
    tests = list(dict.fromkeys(name for job in jobs for name in job.tests))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", *keys, "status", "validation", *tests, "reason"])
    for job in jobs:
        figures = [job.score, *(job.tests.get(name) for name in tests)]
        row = [job.swept.get(key, "") for key in keys]
        writer.writerow([job.folder.name, *row, job.status, *map(_percent, figures), job.reason])
    write_text(sweep / TABLE, text.getvalue())
    return sweep / TABLE


def _percent(value: Any) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _number(folder: Path) -> tuple[int, str]:
    """Job 10 stands after job 9."""
    number = folder.name.split("_", 1)[0]
    return (int(number) if number.isdigit() else -1, folder.name)

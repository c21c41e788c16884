"""A sweep's job: a training in a process and a folder of its own, and what became of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from src.errors import InputError
from src.files import write_text
from src.locks import hold, release
from src.run_folder import CARD, LAST, LOCK
from src.sweeps.overrides import override
from src.sweeps.process import STOPPED, train
from src.sweeps.table import JOB, Job, read_job, write_table

# Seconds in which a training that was told to stop has ended: a validation may come first.
PATIENCE = 900.0


def run_job(
    folder: Path,
    name: str,
    group: str,
    overrides: Sequence[str],
    swept: Mapping[str, str],
    prune: Callable[[], str] = lambda: "",
) -> Job:
    """Train in `folder` by `python -m src.train`, as a run called `name` of the sweep `group`.

    A job that was done or pruned before is left as it is, one that was stopped goes on from its last checkpoint. What
    became of it stands in `folder/job.json` and in the sweep's table; a failure ends the job and not the sweep. A job
    that was told to stop, itself or through this process, ends the sweep with SystemExit.

    Args:
        overrides: the job's own, `name` apart.
        swept: those that differ between the jobs.
        prune: why the job is not worth going on with, asked every second; nothing while it is.

    Raises InputError for a folder in which another process goes on training.
    """
    if (folder / JOB).is_file() and read_job(folder).status == "pruned":
        return read_job(folder)
    status, reason = "done", ""
    if not (folder / CARD).is_file():
        status, reason = _train(folder, [*overrides, override("name", name), override("group", group)], prune)
    if status == "failed":
        print(f"{name} failed ({reason}): the sweep goes on", file=sys.stderr)
    write_text(folder / JOB, json.dumps({"status": status, "reason": reason, "swept": dict(swept)}, indent=1) + "\n")
    write_table(folder.parent)
    return read_job(folder)


def _train(folder: Path, overrides: Sequence[str], prune: Callable[[], str]) -> tuple[str, str]:
    """What became of a training, and why."""
    why = [""]

    def stop() -> bool:
        why[0] = prune()
        return bool(why[0])

    # Of a sweep that was killed, what still trains here ends soon: it watches the process that started it.
    if not hold(folder / LOCK, PATIENCE):
        raise InputError(f"another process trains in {folder}: is this sweep running twice?")
    release(folder / LOCK)
    resumed = ["resume=true"] if (folder / LAST).is_file() else []
    code, said = train([*overrides, *resumed, override("hydra.run.dir", str(folder))], stop)
    if not code:
        return "done", ""
    if code not in STOPPED:
        return "failed", said or f"exit code {code}"
    if why[0]:
        return "pruned", why[0]
    raise SystemExit

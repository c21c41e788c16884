"""A sweep's job: a training in a process of its own, with a folder of its own, and what became of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from src.files import write_text
from src.run_folder import CARD, LAST
from src.sweeps.table import JOB, read_job, write_table

# What would make a job one process of another group: its launcher's, or the scheduler's that started the sweep.
OUTER = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
# Exit codes of a run that was told to stop, before it could say so or after.
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGUSR2)


def run_job(folder: Path, name: str, group: str, overrides: Sequence[str], swept: Mapping[str, str]) -> float | None:
    """Train in `folder` by `python -m src.train`, as a run called `name` of the sweep `group`.

    A job that was done before is left as it is, one that was stopped goes on from its last checkpoint. What became of
    it stands in `folder/job.json` and in the sweep's table; a failure ends the job and not the sweep. A job that was
    told to stop, itself or through this process, ends the sweep with SystemExit.

    Args:
        overrides: the job's own, `name` apart.
        swept: those that differ between the jobs.

    Returns the best validation mAP; None of a job that failed, or without validation.
    """
    status, reason = "done", ""
    if not (folder / CARD).is_file():
        resumed = ["resume=true"] if (folder / LAST).is_file() else []
        code, said = _train([*overrides, *resumed, f"name='{name}'", f"group='{group}'", f"hydra.run.dir='{folder}'"])
        if code in STOPPED:
            raise SystemExit
        if code:
            status, reason = "failed", said or f"exit code {code}"
            print(f"{name} failed ({reason}): the sweep goes on", file=sys.stderr)
    write_text(folder / JOB, json.dumps({"status": status, "reason": reason, "swept": dict(swept)}, indent=1) + "\n")
    write_table(folder.parent)
    return read_job(folder).score


def _train(overrides: Sequence[str]) -> tuple[int, str]:
    """Exit code, and the last line of the errors, which are passed on as they come.

    Whatever ends this process's wait, such as a launcher's signal that the job's time is up, stops the training, which
    writes a checkpoint first.
    """
    command = [sys.executable, "-m", "src.train", *overrides]
    with subprocess.Popen(command, env=own_environment(os.environ), stderr=subprocess.PIPE, text=True) as process:
        try:
            with _passed_on(process):
                last = _echo(process)
        except BaseException:
            process.terminate()
            _echo(process)
            raise
    return process.returncode, last.removeprefix("error: ")


def _echo(process: subprocess.Popen[str]) -> str:
    """Pass the errors of a process on until it ends; the last line."""
    last = ""
    assert process.stderr is not None
    for line in process.stderr:
        sys.stderr.write(line)
        last = line.strip() or last
    process.wait()
    return last


@contextlib.contextmanager
def _passed_on(process: subprocess.Popen[str]) -> Iterator[None]:
    """Hand SIGTERM on to a process; in a launcher's thread there are no signals to take."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def own_environment(outer: Mapping[str, str]) -> dict[str, str]:
    """`outer` without what numbers its processes: a job's processes are numbered from 0 anew.

    Slurm's variables go too, by which Lightning would wait for tasks that a sweep's launcher did not ask for.
    """
    return {key: value for key, value in outer.items() if key not in OUTER and not key.startswith("SLURM_")}

"""The jobs of a sweep (Hydra's `--multirun`) or a search: each is a training or an evaluation in its own process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from dolglab.errors import UserError
from dolglab.io import acquire, release, remove_empty, write_text
from dolglab.processes import (
    CARD,
    LAST,
    LOCK,
    PEER_GONE,
    STOP_WITH_PARENT,
    note_starter,
    started_apart,
    starter_is_gone,
    watch_starter,
)
from dolglab.sweeps.starting import TRAIN, Running, Start
from dolglab.sweeps.summary import JOB, Job, read_job, read_jobs, write_comparison, write_table

if TYPE_CHECKING:
    from dolglab.evaluation.plan import Work

Value = str | bool | int | float | None

# Written before the first job, which may start on another machine: the keys that differ, and the given overrides.
SWEEP = "sweep.json"
# Keys that are set by a job's position in its sweep; a suite names those of its jobs.
PLACED = ("name", "group", "resume", "suite")
# Most characters of a value in a folder's name; of a path, the last ones.
VALUE_LETTERS = 48
# Variables that would make a job a process of its launcher's or scheduler's group, or another run's on W&B.
OUTER = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
OUTER += ("WANDB_RUN_ID",)
TORCHRUN = ("TORCHELASTIC_", "LOCAL_WORLD_SIZE", "ROLE_", "GROUP_WORLD_SIZE")
# Exit codes of a run that was asked to stop, before or after it could handle the request.
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGUSR2)
# Seconds between checks of a job's progress.
POLL_SECONDS = 1.0


class SweepReport(Callback):
    """Records what a sweep varies before its first job, and draws the comparison after its last."""

    # The folder that this process created, until a job uses it.
    begun: ClassVar[Path | None] = None
    # The work of a suite, if it is only planned.
    planned: ClassVar[list[Work]] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write `sweep.json`. Ends with one line if several processes run it, or if the folder has another sweep."""
        if started_apart():
            _refuse("start a sweep once, without torchrun or srun: its jobs start their own processes")
        if config.get("plan") and config.hydra.runtime.choices["hydra/launcher"] != "basic":
            # The plans of other processes would be missing in the sum.
            _refuse("plan=true goes through the jobs one by one, in this process: leave out hydra/launcher=...")
        note_starter()
        # Given overrides take precedence over those of a suite, as in Hydra's own sweeper.
        suite = [f"{key}={value}" for key, value in (OmegaConf.select(config, "hydra.sweeper.params") or {}).items()]
        asked = {_split(text)[0]: text for text in [*suite, *config.hydra.overrides.task]}
        given = [text for key, text in asked.items() if key not in PLACED]
        parsed = OverridesParser.create().parse_overrides(given)
        about = {"swept": [part.get_key_element() for part in parsed if part.is_sweep_override()], "overrides": given}
        path = Path(config.hydra.sweep.dir) / SWEEP
        if not path.exists():
            SweepReport.begun = path.parent
        if config.get("plan"):
            return
        if path.exists() and (before := json.loads(path.read_text())) != about:
            _refuse(f"{path.parent} holds another sweep ({' '.join(before['overrides'])}): choose another name=...")
        write_text(path, json.dumps(about, indent=1) + "\n")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Draw `comparison.svg` if there is anything to compare, and print where the table is."""
        if config.get("plan"):
            from dolglab.evaluation.plan import total

            print(total(SweepReport.planned))
            drop_refused_sweep()
            return
        sweep = Path(config.hydra.sweep.dir)
        jobs = read_jobs(sweep)
        failed = sum(job.status != "done" for job in jobs)
        write_comparison(jobs, sweep)
        # If two jobs ended at the same time, either may have written the table without the other.
        print(f"{len(jobs)} jobs, {failed} failed: {write_table(sweep)}")


def drop_refused_sweep() -> None:
    """Remove the folder of a sweep that this process created, if it contains only the sweep's description."""
    folder = SweepReport.begun
    with contextlib.suppress(OSError):
        if folder and {path.name for path in folder.iterdir()} <= {SWEEP, "multirun.yaml"}:
            for path in folder.iterdir():
                path.unlink()
            remove_empty(folder)


def sweep_job(name: str, start: Start = TRAIN, group: str | None = None) -> float | None:
    """Run this process's job of the multirun `name` (see `run_job`); returns its best validation mAP, for sweepers."""
    watch_starter()
    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir)
    given = dict(map(_split, hydra.overrides.task))
    swept = {key: given[key] for key in json.loads((sweep / SWEEP).read_text())["swept"] if key in given}
    folder = job_folder(int(hydra.job.num), swept)
    overrides = [text for text in hydra.overrides.task if _split(text)[0] not in PLACED]
    return run_job(sweep / folder, f"{name}/{folder}", group, overrides, swept, start=start).score


def run_job(
    folder: Path,
    name: str,
    group: str | None,
    overrides: Sequence[str],
    swept: Mapping[str, str],
    why_prune: Callable[[], str] = lambda: "",
    patience: float = 900.0,
    start: Start = TRAIN,
) -> Job:
    """Run a training, or what `start` starts, in `folder`, as a run called `name`.

    A job that is already done or pruned is not repeated. A job that was stopped continues: a training from its last
    checkpoint, an evaluation with the descriptors that it kept. The outcome is written to `folder/job.json` and to the
    sweep's table; a failure ends the job but not the sweep. If the job or this process was asked to stop, the sweep
    ends with SystemExit.

    Args:
        group: group of the runs on W&B; None for a command that does not log there.
        overrides: the job's overrides, without `name`.
        swept: the overrides that differ between jobs.
        why_prune: returns why the job should be pruned, or an empty string; called every second.
        patience: seconds to wait for a job in this folder that was asked to stop; it may have to validate first.

    Raises UserError if another process works in the folder.
    """
    if (folder / JOB).is_file() and read_job(folder).status == "pruned":
        return read_job(folder)
    status, reason = "done", ""
    if not (folder / CARD).is_file():
        # A job of a killed sweep that still runs here ends soon, because it watches its parent process.
        if not acquire(folder / LOCK, patience):
            raise UserError(f"another process works in {folder}: is this sweep running twice?")
        release(folder / LOCK)
        grouped = [] if group is None else [override("group", group)]
        status, reason = _run(folder, [*overrides, override("name", name), *grouped], why_prune, start)
    if status == "failed":
        print(f"{name} failed ({reason}): the sweep continues", file=sys.stderr)
    write_text(folder / JOB, json.dumps({"status": status, "reason": reason, "swept": dict(swept)}, indent=1) + "\n")
    write_table(folder.parent)
    return read_job(folder)


def _run(folder: Path, overrides: Sequence[str], why_prune: Callable[[], str], start: Start) -> tuple[str, str]:
    """The outcome of a job, and its reason."""
    reason = ""

    def stop() -> bool:
        nonlocal reason
        reason = why_prune()
        return bool(reason)

    resumed = ["resume=true"] if (folder / LAST).is_file() else []
    code, said = run_command([*overrides, *resumed, override("hydra.run.dir", str(folder))], stop, start)
    if not code:
        return "done", ""
    if code not in STOPPED:
        return "failed", said or f"exit code {code}"
    if reason:
        return "pruned", reason
    raise SystemExit


def run_command(
    overrides: Sequence[str], stop: Callable[[], bool] = lambda: False, start: Start = TRAIN
) -> tuple[int, str]:
    """Run what `start` starts with `overrides`; returns the exit code, and the error that ended it.

    When `stop`, which is called every second, returns true, the job is asked to stop; a training writes a checkpoint
    first. The same happens if something interrupts this process, such as a launcher's signal that the time is up.
    Raises SystemExit, after the job has ended, if this process was asked to stop or the sweep's starter has ended.
    """
    with _note_sigterm() as received, start(overrides, job_environment(os.environ)) as process:
        errors: list[str] = []
        relay = threading.Thread(target=_relay_errors, args=(process, errors))
        relay.start()
        try:
            _wait(process, lambda: stop() or bool(received) or starter_is_gone())
        except KeyboardInterrupt:
            # The job has received it too.
            raise
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
            relay.join()
    if received or starter_is_gone():
        raise SystemExit
    assert process.returncode is not None
    # The most informative line: the first error of a process that failed by itself, else the last line.
    return process.returncode, errors[0].removeprefix("error: ")


def job_environment(outer: Mapping[str, str]) -> dict[str, str]:
    """`outer` without the variables that number processes: a job's processes are numbered from 0 again.

    Slurm's variables are removed too: with them, Lightning would wait for tasks that a sweep's launcher did not
    request. The job stops when this process has ended.

    >>> job_environment({"HOME": "/root", "LOCAL_RANK": "1", "SLURM_JOB_ID": "7"})
    {'HOME': '/root', 'DOLG_STOP_WITH_PARENT': '1'}
    """
    dropped = ("SLURM_", *TORCHRUN)
    kept = {key: value for key, value in outer.items() if key not in OUTER and not key.startswith(dropped)}
    return kept | {STOP_WITH_PARENT: "1"}


def _wait(process: Running, stop: Callable[[], bool]) -> None:
    """Wait until the process ends; ask it to stop when `stop` returns true."""
    told = False
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
            return
        if not told and stop():
            told = True
            process.terminate()


def _relay_errors(process: Running, errors: list[str]) -> None:
    """Forward a process's stderr, and collect its error lines and, at the end, its last line."""
    assert process.stderr is not None
    last = ""
    for line in process.stderr:
        sys.stderr.write(line)
        last = line.strip() or last
        if line.startswith("error: ") and PEER_GONE not in line:
            errors.append(line.strip())
    errors.append(last)


@contextlib.contextmanager
def _note_sigterm() -> Iterator[list[int]]:
    """SIGTERM does not end this process but adds an entry to the yielded list: its job is asked to stop.

    Signals cannot be handled in a launcher's thread.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse(mistake: str) -> NoReturn:
    """End before the first job: Hydra turns exceptions into warnings here."""
    print("error:", mistake, file=sys.stderr)
    raise SystemExit(2)


def _split(text: str) -> tuple[str, str]:
    """Key and value of an override."""
    key, _, value = text.partition("=")
    return key, value


def override(key: str, value: Value) -> str:
    """`key=value` in Hydra's syntax.

    >>> override("ema", None), override("name", "a b"), override("seed", 3)
    ('ema=null', 'name="a b"', 'seed=3')
    """
    if value is None or isinstance(value, bool):
        return f"{key}={'null' if value is None else str(value).lower()}"
    return f"{key}={quoted(value) if isinstance(value, str) else value}"


def quoted(text: str) -> str:
    """A quoted string in Hydra's syntax: backslashes are literal except before a quote."""
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def job_folder(number: int, swept: Mapping[str, str]) -> str:
    """A job's folder: its number and settings, in characters that are safe in file systems, overrides and shells.

    >>> job_folder(3, {"margin.margin": "0.15", "pooling.p": "2"})
    '3_margin-0.15_p-2'
    """
    letters = {key: re.sub(r"[^A-Za-z0-9.+-]+", "-", value).strip("-") for key, value in swept.items()}
    values = {key: value[-VALUE_LETTERS:].strip("-") or "empty" for key, value in letters.items()}
    return "_".join([str(number), *(f"{name}-{values[key]}" for key, name in short_names(list(swept)).items())])


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last name of each dotted key, or the whole key if two end alike."""
    last = {key: key.lstrip("+").rsplit(".", 1)[-1] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key.lstrip("+") for key, name in last.items()}

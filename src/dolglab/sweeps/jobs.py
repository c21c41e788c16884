"""The jobs of a sweep, Hydra's (`--multirun`) or a search's: each a training or an evaluation, a process of its own."""

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
from types import FrameType
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
)
from dolglab.sweeps.summary import JOB, Job, read_job, read_jobs, write_comparison, write_table

if TYPE_CHECKING:
    from dolglab.evaluation.plan import Work

Value = str | bool | int | float | None

# Written before the first job, which may start on another machine: the keys that differ, and what was asked for.
SWEEP = "sweep.json"
# What a job's place in its sweep decides; a suite names what its jobs get as theirs.
PLACED = ("name", "group", "resume", "suite")
TRAIN = (sys.executable, "-m", "dolglab.commands.train")
EVALUATE = (sys.executable, "-m", "dolglab.commands.evaluate")
# Letters of a value in a folder's name: of a path, its end.
VALUE_LETTERS = 48
# What would make a job one process of another group, its launcher's or the scheduler's that started the sweep, or
# another run on W&B.
OUTER = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
OUTER += ("WANDB_RUN_ID",)
TORCHRUN = ("TORCHELASTIC_", "LOCAL_WORLD_SIZE", "ROLE_", "GROUP_WORLD_SIZE")
# Exit codes of a run that was told to stop, before it could say so or after.
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGUSR2)
# Between two looks at how a job does.
POLL_SECONDS = 1.0


class SweepReport(Callback):
    """Notes what a sweep varies before its first job, and draws the comparison after its last."""

    # The folder that this process began, as long as no job has.
    begun: ClassVar[Path | None] = None
    # The work of a suite that is only planned.
    planned: ClassVar[list[Work]] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write `sweep.json`; end with a line on a sweep that several processes would run, or that is another one."""
        if started_apart():
            _refuse("start a sweep once, without torchrun or srun: its jobs start their own processes")
        if config.get("plan") and config.hydra.runtime.choices["hydra/launcher"] != "basic":
            # What other processes plan would be missing in the sum.
            _refuse("plan=true goes through the jobs one by one, in this process: leave out hydra/launcher=...")
        note_starter()
        # What is given goes before what a suite says, as for Hydra's own sweeper.
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
        """Draw `comparison.svg` where there is anything to compare, and say where the table is."""
        if config.get("plan"):
            from dolglab.evaluation.plan import total

            print(total(SweepReport.planned))
            drop_refused_sweep()
            return
        sweep = Path(config.hydra.sweep.dir)
        jobs = read_jobs(sweep)
        failed = sum(job.status != "done" for job in jobs)
        write_comparison(jobs, sweep)
        # Of two jobs that ended together, either may have written the table without the other.
        print(f"{len(jobs)} jobs, {failed} failed: {write_table(sweep)}")


def drop_refused_sweep() -> None:
    """Remove the folder of a sweep that this process began, where nothing but its description is in it."""
    folder = SweepReport.begun
    with contextlib.suppress(OSError):
        if folder and {path.name for path in folder.iterdir()} <= {SWEEP, "multirun.yaml"}:
            for path in folder.iterdir():
                path.unlink()
            remove_empty(folder)


def sweep_job(name: str, command: Sequence[str] = TRAIN, group: str | None = None) -> float | None:
    """Run this process's job of the multirun `name` (see `run_job`); its best validation mAP, which sweepers go by."""
    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir)
    given = dict(map(_split, hydra.overrides.task))
    swept = {key: given[key] for key in json.loads((sweep / SWEEP).read_text())["swept"] if key in given}
    folder = job_folder(int(hydra.job.num), swept)
    overrides = [text for text in hydra.overrides.task if _split(text)[0] not in PLACED]
    return run_job(sweep / folder, f"{name}/{folder}", group, overrides, swept, command=command).score


def run_job(
    folder: Path,
    name: str,
    group: str | None,
    overrides: Sequence[str],
    swept: Mapping[str, str],
    why_prune: Callable[[], str] = lambda: "",
    patience: float = 900.0,
    command: Sequence[str] = TRAIN,
) -> Job:
    """Run `command` (`dolglab train`, `dolglab evaluate`) in `folder`, as a run called `name`.

    A job that was done or pruned before is left as it is, one that was stopped goes on: a training from its last
    checkpoint, an evaluation with the descriptors that it kept. What
    became of it stands in `folder/job.json` and in the sweep's table; a failure ends the job and not the sweep. A job
    that was told to stop, itself or through this process, ends the sweep with SystemExit.

    Args:
        group: of the runs on W&B; None for a command that logs none there.
        overrides: the job's own, `name` apart.
        swept: those that differ between the jobs.
        why_prune: why the job is not worth going on with, asked every second; nothing while it is.
        patience: seconds in which a job of this folder that was told to stop has ended; a validation may come first.

    Raises UserError for a folder in which another process goes on.
    """
    if (folder / JOB).is_file() and read_job(folder).status == "pruned":
        return read_job(folder)
    status, reason = "done", ""
    if not (folder / CARD).is_file():
        # Of a sweep that was killed, what still runs here ends soon: it watches the process that started it.
        if not acquire(folder / LOCK, patience):
            raise UserError(f"another process works in {folder}: is this sweep running twice?")
        release(folder / LOCK)
        grouped = [] if group is None else [override("group", group)]
        status, reason = _run(folder, [*overrides, override("name", name), *grouped], why_prune, command)
    if status == "failed":
        print(f"{name} failed ({reason}): the sweep goes on", file=sys.stderr)
    write_text(folder / JOB, json.dumps({"status": status, "reason": reason, "swept": dict(swept)}, indent=1) + "\n")
    write_table(folder.parent)
    return read_job(folder)


def _run(
    folder: Path, overrides: Sequence[str], why_prune: Callable[[], str], command: Sequence[str]
) -> tuple[str, str]:
    """What became of a job, and why."""
    reason = ""

    def stop() -> bool:
        nonlocal reason
        reason = why_prune()
        return bool(reason)

    resumed = ["resume=true"] if (folder / LAST).is_file() else []
    code, said = run_command([*overrides, *resumed, override("hydra.run.dir", str(folder))], stop, command)
    if not code:
        return "done", ""
    if code not in STOPPED:
        return "failed", said or f"exit code {code}"
    if reason:
        return "pruned", reason
    raise SystemExit


def run_command(
    overrides: Sequence[str], stop: Callable[[], bool] = lambda: False, command: Sequence[str] = TRAIN
) -> tuple[int, str]:
    """Run `command` with `overrides`; exit code, and the error that it ended with.

    When `stop` is true, which is asked every second, the job is told to stop; a training writes a checkpoint first. So
    it is when something ends this process's wait, such as a launcher's signal that the time is up. Raises SystemExit
    where this process is told to stop, or the one that started the sweep is gone, once the job has ended.
    """
    environment = job_environment(os.environ)
    with subprocess.Popen([*command, *overrides], env=environment, stderr=subprocess.PIPE, text=True) as process:
        errors: list[str] = []
        relay = threading.Thread(target=_relay_errors, args=(process, errors))
        relay.start()
        try:
            with _forward_sigterm(process) as received:
                _wait(process, lambda: stop() or starter_is_gone())
        except KeyboardInterrupt:
            # The job has had it too.
            raise
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
            relay.join()
    if received or starter_is_gone():
        raise SystemExit
    # What says most: the first error of a process that failed for itself, else the last line.
    return process.returncode, errors[0].removeprefix("error: ")


def job_environment(outer: Mapping[str, str]) -> dict[str, str]:
    """`outer` without what numbers its processes: a job's processes are numbered from 0 anew.

    Slurm's variables go too, by which Lightning would wait for tasks that a sweep's launcher did not ask for. The job
    is told to stop when this process is gone.

    >>> job_environment({"HOME": "/root", "LOCAL_RANK": "1", "SLURM_JOB_ID": "7"})
    {'HOME': '/root', 'DOLG_STOP_WITH_PARENT': '1'}
    """
    dropped = ("SLURM_", *TORCHRUN)
    kept = {key: value for key, value in outer.items() if key not in OUTER and not key.startswith(dropped)}
    return kept | {STOP_WITH_PARENT: "1"}


def _wait(process: subprocess.Popen[str], stop: Callable[[], bool]) -> None:
    """Until the process ends, which is told to once `stop` is true."""
    told = False
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
            return
        if not told and stop():
            told = True
            process.terminate()


def _relay_errors(process: subprocess.Popen[str], errors: list[str]) -> None:
    """Pass on what a process writes to stderr, and keep its error lines and, last, the last line of all."""
    assert process.stderr is not None
    last = ""
    for line in process.stderr:
        sys.stderr.write(line)
        last = line.strip() or last
        if line.startswith("error: ") and PEER_GONE not in line:
            errors.append(line.strip())
    errors.append(last)


@contextlib.contextmanager
def _forward_sigterm(process: subprocess.Popen[str]) -> Iterator[list[bool]]:
    """Hand SIGTERM on to a process; the list that is yielded has an entry once it came.

    In a launcher's thread there are no signals to take.
    """
    received: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(True)
        process.terminate()

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse(mistake: str) -> NoReturn:
    """End before the first job: of an exception, Hydra makes a warning."""
    print("error:", mistake, file=sys.stderr)
    raise SystemExit(2)


def _split(text: str) -> tuple[str, str]:
    """Key and value of an override."""
    key, _, value = text.partition("=")
    return key, value


def override(key: str, value: Value) -> str:
    """`key=value` as Hydra reads it.

    >>> override("ema", None), override("name", "a b"), override("seed", 3)
    ('ema=null', 'name="a b"', 'seed=3')
    """
    if value is None or isinstance(value, bool):
        return f"{key}={'null' if value is None else str(value).lower()}"
    return f"{key}={quoted(value) if isinstance(value, str) else value}"


def quoted(text: str) -> str:
    """A string in quotes as Hydra reads them: backslashes stand for themselves but before a quote."""
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def job_folder(number: int, swept: Mapping[str, str]) -> str:
    """A job's folder: its number, and what differs, in letters that a file system, an override and a shell take.

    >>> job_folder(3, {"margin.margin": "0.15", "pooling.p": "2"})
    '3_margin-0.15_p-2'
    """
    letters = {key: re.sub(r"[^A-Za-z0-9.+-]+", "-", value).strip("-") for key, value in swept.items()}
    values = {key: value[-VALUE_LETTERS:].strip("-") or "empty" for key, value in letters.items()}
    return "_".join([str(number), *(f"{name}-{values[key]}" for key, name in short_names(list(swept)).items())])


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last name of each dotted key, or the whole where two end alike."""
    last = {key: key.lstrip("+").rsplit(".", 1)[-1] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key.lstrip("+") for key, name in last.items()}

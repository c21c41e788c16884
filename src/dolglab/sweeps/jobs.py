"""Hydra's side of a sweep: what differs between its jobs, each of which is a training in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from dolglab.commands.run_folder import CARD, LAST, LOCK
from dolglab.errors import UserError
from dolglab.io import acquire, release, write_text
from dolglab.processes import PEER_GONE, STOP_WITH_PARENT, note_starter, started_apart, starter_is_gone
from dolglab.sweeps.overrides import job_folder, override
from dolglab.sweeps.summary import JOB, Job, read_job, write_table

# What would make a job one process of another group, its launcher's or the scheduler's that started the sweep, or
# another run on W&B.
OUTER = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
OUTER += ("WANDB_RUN_ID",)
TORCHRUN = ("TORCHELASTIC_", "LOCAL_WORLD_SIZE", "ROLE_", "GROUP_WORLD_SIZE")
# Exit codes of a run that was told to stop, before it could say so or after.
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGUSR2)
# Between two looks at how it does.
SECONDS = 1.0


def train(overrides: Sequence[str], stop: Callable[[], bool] = lambda: False) -> tuple[int, str]:
    """Run `dolglab train` with `overrides`; exit code, and the last line of its errors, which are passed on.

    When `stop` is true, which is asked every second, the training is told to stop, and writes a checkpoint first. So it
    is when something ends this process's wait, such as a launcher's signal that the time is up. Raises SystemExit where
    this process is told to stop, or the one that started the sweep is gone, once the training has ended.
    """
    command = [sys.executable, "-m", "dolglab.commands.train", *overrides]
    with subprocess.Popen(command, env=own_environment(os.environ), stderr=subprocess.PIPE, text=True) as process:
        said = [""]
        echo = threading.Thread(target=_echo, args=(process, said))
        echo.start()
        try:
            with _passed_on(process) as told:
                _wait(process, lambda: stop() or starter_is_gone())
        except KeyboardInterrupt:
            # The training has had it too.
            raise
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
            echo.join()
    if told or starter_is_gone():
        raise SystemExit
    return process.returncode, said[0].removeprefix("error: ")


def own_environment(outer: Mapping[str, str]) -> dict[str, str]:
    """`outer` without what numbers its processes: a job's processes are numbered from 0 anew.

    Slurm's variables go too, by which Lightning would wait for tasks that a sweep's launcher did not ask for. The job
    is told to stop when this process is gone.
    """
    kept = {
        key: value for key, value in outer.items() if key not in OUTER and not key.startswith(("SLURM_", *TORCHRUN))
    }
    return kept | {STOP_WITH_PARENT: "1"}


def _wait(process: subprocess.Popen[str], stop: Callable[[], bool]) -> None:
    """Until the process ends."""
    told = False
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS)
            return
        if not told and stop():
            told = True
            process.terminate()


def _echo(process: subprocess.Popen[str], said: list[str]) -> None:
    """Pass the errors of a process on, and keep the line that says most: the first error of a process that failed for
    itself, else the last line."""
    assert process.stderr is not None
    errors: list[str] = []
    for line in process.stderr:
        sys.stderr.write(line)
        errors += [line.strip()] if line.startswith("error: ") and PEER_GONE not in line else []
        said[0] = errors[0] if errors else line.strip() or said[0]


@contextlib.contextmanager
def _passed_on(process: subprocess.Popen[str]) -> Iterator[list[bool]]:
    """Hand SIGTERM on to a process, and note that it came; in a launcher's thread there are no signals to take."""
    told: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def tell(number: int, frame: FrameType | None) -> None:
        told.append(True)
        process.terminate()

    before = signal.signal(signal.SIGTERM, tell)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


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
    """Train in `folder` by `dolglab train`, as a run called `name` of the sweep `group`.

    A job that was done or pruned before is left as it is, one that was stopped goes on from its last checkpoint. What
    became of it stands in `folder/job.json` and in the sweep's table; a failure ends the job and not the sweep. A job
    that was told to stop, itself or through this process, ends the sweep with SystemExit.

    Args:
        overrides: the job's own, `name` apart.
        swept: those that differ between the jobs.
        prune: why the job is not worth going on with, asked every second; nothing while it is.

    Raises UserError for a folder in which another process goes on training.
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
    if not acquire(folder / LOCK, PATIENCE):
        raise UserError(f"another process trains in {folder}: is this sweep running twice?")
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


# Written before the first job, which may start on another machine: the keys that differ, and what was asked for.
SWEEP = "sweep.json"
# What a run's place follows from, which its job gets anew.
OWN = ("name", "group", "resume")


def sweep_job(cfg: DictConfig) -> float | None:
    """Run this process's job (see `run_job`); returns its best validation mAP, which a sweeper may go by."""

    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir)
    given = dict(_parts(override) for override in hydra.overrides.task)
    swept = {key: given[key] for key in json.loads((sweep / SWEEP).read_text())["swept"] if key in given}
    folder = job_folder(int(hydra.job.num), swept)
    overrides = [override for override in hydra.overrides.task if _parts(override)[0] not in OWN]
    return run_job(sweep / folder, f"{cfg.name}/{folder}", str(cfg.name), overrides, swept).score


class SweepReport(Callback):
    """Notes what a sweep varies before its first job, and draws the comparison after its last."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write `sweep.json`; end with a line on a sweep that several processes would run, or that is another one."""
        if started_apart():
            refuse("start a sweep once, without torchrun or srun: its jobs start their own processes")
        note_starter()
        given = [override for override in map(str, config.hydra.overrides.task) if _parts(override)[0] not in OWN]
        parsed = OverridesParser.create().parse_overrides(given)
        about = {
            "swept": [override.get_key_element() for override in parsed if override.is_sweep_override()],
            "overrides": given,
        }
        path = Path(config.hydra.sweep.dir) / SWEEP
        if path.exists() and (before := json.loads(path.read_text())) != about:
            refuse(f"{path.parent} holds another sweep ({' '.join(before['overrides'])}): choose another name=...")
        write_text(path, json.dumps(about, indent=1) + "\n")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Draw `comparison.svg` where there is anything to compare, and say where the table is."""
        # A run that is no sweep does without what draws.
        from dolglab.sweeps.summary import read_jobs, write_comparison, write_table

        sweep = Path(config.hydra.sweep.dir)
        jobs = read_jobs(sweep)
        failed = sum(job.status != "done" for job in jobs)
        write_comparison(jobs, sweep)
        # Of two jobs that ended together, either may have written the table without the other.
        print(f"{len(jobs)} jobs, {failed} failed: {write_table(sweep)}")


def refuse(mistake: str) -> NoReturn:
    """End before the first job: of an exception, Hydra makes a warning."""
    print("error:", mistake, file=sys.stderr)
    raise SystemExit(2)


def _parts(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key, value

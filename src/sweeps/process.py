"""A training in a process of its own, watched until it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

from src.processes import PEER_GONE, STOP_WITH_PARENT, starter_is_gone

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
    """Run `python -m src.train` with `overrides`; exit code, and the last line of its errors, which are passed on.

    When `stop` is true, which is asked every second, the training is told to stop, and writes a checkpoint first. So it
    is when something ends this process's wait, such as a launcher's signal that the time is up. Raises SystemExit where
    this process is told to stop, or the one that started the sweep is gone, once the training has ended.
    """
    command = [sys.executable, "-m", "src.train", *overrides]
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

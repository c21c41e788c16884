"""The processes of one run: which one writes to its folder, and how they end together."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Files of a run's folder; the last is locked by the process that writes there.
CARD, LAST, LOCK = "card.json", "checkpoints/last.ckpt", ".lock"

# Messages of gloo and NCCL about a peer that has ended.
GONE = ("Connection closed by peer", "Connection reset by peer", "remote process exited", "Broken pipe")
SECONDS, WATCH = 2.0, "watch of who started this"
# Set in the environment of a sweep's jobs.
STOP_WITH_PARENT = "DOLG_STOP_WITH_PARENT"
# Set in the environment of the processes that a sweep's launcher starts.
STARTER = "DOLG_SWEEP_STARTER"
PEER_GONE = "another process of this run ended"


def main_process() -> bool:
    """Whether this is the process that writes, the first one: Lightning, torchrun and Slurm count from 0."""
    # Lightning is only asked if it is loaded already: importing it takes seconds.
    lightning = sys.modules.get("lightning.fabric.utilities.rank_zero")
    given = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    rank = lightning.rank_zero_only.rank if lightning else int(next(filter(None, given), 0))
    return rank == 0 and os.environ.get("NODE_RANK", "0") == "0"


def launched() -> dict[str, int]:
    """`trainer.devices` and `trainer.num_nodes` from torchrun, which override the configuration; empty without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {}
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return {"devices": local, "num_nodes": world // local}


def distributed() -> bool:
    """Whether several processes work together in torch's process group."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def gather_all(value: T) -> list[T]:
    """The values of all processes, by rank, in every process; all must call it."""
    if not distributed():
        return [value]
    import torch.distributed as dist

    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def started_apart() -> bool:
    """Whether torchrun or Slurm started the processes of this run, at possibly different times."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", 1)) > 1


def note_starter() -> None:
    """Store in the environment which process starts a sweep, for the processes of its launcher."""
    os.environ[STARTER] = json.dumps([socket.gethostname(), os.getpid(), _born(os.getpid())])


def starter_is_gone() -> bool:
    """Whether the process that started this process's sweep has ended, as far as this machine can tell.

    Jobs of a scheduler are exempt: they outlive the command that queued them.
    """
    if STARTER not in os.environ or "SLURM_JOB_ID" in os.environ:
        return False
    host, number, born = json.loads(os.environ[STARTER])
    return host == socket.gethostname() and _born(number) != born


def _born(number: int) -> str | None:
    """The start time of a process as Linux reports it; None if it does not exist, or on other systems."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2].split()[19]
    except OSError:
        return None


def watch_parent() -> None:
    """If Lightning or a sweep started this process, end it soon after its parent has ended.

    One of several processes would wait in a collective operation forever (Lightning watches the other direction). A
    sweep's job is asked to stop and writes a checkpoint; otherwise it and its successor would share a folder.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" not in os.environ:
        _watch(_parent_is_there(), lambda: os._exit(1))
    elif os.environ.get(STOP_WITH_PARENT):
        _watch(_parent_is_there(), lambda: os.kill(os.getpid(), signal.SIGTERM))


def watch_starter() -> None:
    """If a launcher started this process to run jobs, end it soon after the process that started the sweep has ended.

    A joblib worker would wait for further jobs forever. Its own job ends because its parent has ended.
    """
    started_elsewhere = STARTER in os.environ and json.loads(os.environ[STARTER])[1] != os.getpid()
    if started_elsewhere and not any(thread.name == WATCH for thread in threading.enumerate()):
        _watch(lambda: not starter_is_gone(), lambda: os._exit(1))


def outlast_stop(worker: int) -> None:
    """Let a loader worker, by its `worker_init_fn`, finish its batch if the whole process group is asked to stop.

    Schedulers, `timeout` and Ctrl-C signal every process of a run; without its workers it could not reach a checkpoint.
    A second SIGTERM ends the worker: the main process sends it to those that do not end by themselves.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _parent_is_there() -> Callable[[], bool]:
    """A function that returns whether this process still has the parent that it has now."""
    parent = os.getppid()
    return lambda: os.getppid() == parent


def _watch(goes_on: Callable[[], bool], end: Callable[[], None]) -> None:
    """Call `end` once `goes_on` returns false; an exception in a thread would not end a process that waits."""

    def watch() -> None:
        while goes_on():
            time.sleep(SECONDS)
        end()

    threading.Thread(target=watch, daemon=True, name=WATCH).start()

"""The processes of one run: which of them writes to its folder, and how they end together."""

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

# What lies in a run's folder; the last is held by the process that writes to it.
CARD, LAST, LOCK = "card.json", "checkpoints/last.ckpt", ".lock"

# What gloo and NCCL say of a peer that is gone.
GONE = ("Connection closed by peer", "Connection reset by peer", "remote process exited", "Broken pipe")
SECONDS, WATCH = 2.0, "watch of who started this"
# Set in the environment of a sweep's job.
STOP_WITH_PARENT = "DOLG_STOP_WITH_PARENT"
# Set in the environment of whatever a sweep's launcher starts.
STARTER = "DOLG_SWEEP_STARTER"
PEER_GONE = "another process of this run ended"


def main_process() -> bool:
    """Whether this is the process that writes: Lightning, torchrun and Slurm number them all from 0."""
    # Loading Lightning to ask it takes seconds, which a command that does without it would spend on stopping.
    lightning = sys.modules.get("lightning.fabric.utilities.rank_zero")
    given = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    rank = lightning.rank_zero_only.rank if lightning else int(next(filter(None, given), 0))
    return rank == 0 and os.environ.get("NODE_RANK", "0") == "0"


def launched() -> dict[str, int]:
    """`trainer.devices` and `trainer.num_nodes` as torchrun has it, whatever is asked for; nothing without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {}
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return {"devices": local, "num_nodes": world // local}


def distributed() -> bool:
    """Whether several processes work together in torch's process group."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def gather_all(value: T) -> list[T]:
    """The value of each process, by rank, in all of them; all must call it."""
    if not distributed():
        return [value]
    import torch.distributed as dist

    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def started_apart() -> bool:
    """Whether something else started the processes of this run, so that each has a clock of its own."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", 1)) > 1


def note_starter() -> None:
    """Say in the environment which process starts a sweep, for those that its launcher makes."""
    os.environ[STARTER] = json.dumps([socket.gethostname(), os.getpid(), _born(os.getpid())])


def starter_is_gone() -> bool:
    """Whether the process that started this one's sweep has ended, as far as this machine can say.

    What a scheduler runs outlives the command that queued it.
    """
    if STARTER not in os.environ or "SLURM_JOB_ID" in os.environ:
        return False
    host, number, born = json.loads(os.environ[STARTER])
    return host == socket.gethostname() and _born(number) != born


def _born(number: int) -> str | None:
    """When a process was started, in its system's words; None of one that is not there, or not to be asked."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2].split()[19]
    except OSError:
        return None


def watch_parent() -> None:
    """End this process soon after the one that started it, where Lightning or a sweep did.

    One of several would wait in a collective operation for ever; the other way round, Lightning watches. A sweep's job
    is told to stop, and writes a checkpoint: beside its successor it would be two runs in one folder.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" not in os.environ:
        _watch(_parent_is_there(), lambda: os._exit(1))
    elif os.environ.get(STOP_WITH_PARENT):
        _watch(_parent_is_there(), lambda: os.kill(os.getpid(), signal.SIGTERM))


def watch_starter() -> None:
    """End this process soon after the one that started the sweep, where a launcher made it to run jobs.

    A worker of joblib's would wait for further jobs for ever. Its own job ends as its parent is gone.
    """
    started_elsewhere = STARTER in os.environ and json.loads(os.environ[STARTER])[1] != os.getpid()
    if started_elsewhere and not any(thread.name == WATCH for thread in threading.enumerate()):
        _watch(lambda: not starter_is_gone(), lambda: os._exit(1))


def _parent_is_there() -> Callable[[], bool]:
    """Whether this process's parent of now is still its parent, whenever that is called."""
    parent = os.getppid()
    return lambda: os.getppid() == parent


def _watch(goes_on: Callable[[], bool], end: Callable[[], None]) -> None:
    """Call `end` once nothing goes on. No exception in a thread ends a process that waits in a collective."""

    def watch() -> None:
        while goes_on():
            time.sleep(SECONDS)
        end()

    threading.Thread(target=watch, daemon=True, name=WATCH).start()

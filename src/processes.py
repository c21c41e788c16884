"""The processes of one run: which of them writes, and how they end together."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

# What gloo and NCCL say of a peer that is gone.
GONE = ("Connection closed by peer", "Connection reset by peer", "remote process exited", "Broken pipe")
SECONDS = 2.0
# Set in the environment of a sweep's job.
STOP_WITH_PARENT = "DOLG_STOP_WITH_PARENT"


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


def started_apart() -> bool:
    """Whether something else started the processes of this run, so that each has a clock of its own."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", 1)) > 1


def watch_parent() -> None:
    """End this process soon after the one that started it, where Lightning or a sweep did.

    One of several would wait in a collective operation for ever; the other way round, Lightning watches. A sweep's job
    is told to stop, and writes a checkpoint: beside its successor it would be two runs in one folder.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" not in os.environ:
        _watch(lambda: os._exit(1))
    elif os.environ.get(STOP_WITH_PARENT):
        _watch(lambda: os.kill(os.getpid(), signal.SIGTERM))


def peer_is_gone(error: BaseException) -> bool:
    """Whether an error is what a process says when another one of its group died."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in GONE)


def _watch(end: Callable[[], None]) -> None:
    """Call `end` once the parent is gone. No exception in a thread ends a process that waits in a collective."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS)
        end()

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()

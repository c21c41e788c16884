"""Processes of one run end together: a dead one must not leave the others waiting for it."""

from __future__ import annotations

import os
import threading
import time

# What gloo and NCCL say of a peer that is gone.
GONE = ("Connection closed by peer", "Connection reset by peer", "remote process exited", "Broken pipe")
SECONDS = 2.0


def watch_parent() -> None:
    """End this process soon after the one that started it, where Lightning started it.

    It would wait in a collective operation for ever; the other way round, Lightning watches.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0" or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="parent-watch").start()


def peer_is_gone(error: BaseException) -> bool:
    """Whether an error is what a process says when another one of its group died."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in GONE)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS)
    # No exception in a thread ends a process that waits in a collective operation.
    os._exit(1)

"""A command that is interrupted: `python -m end_to_end.broken_off FOLDER STEP BYTES MODULE ARGUMENTS...`.

It ends itself, with all of its group, by SIGKILL just before its STEP-th change to what lies below FOLDER: a file that
is opened for writing, renamed, linked or removed, a folder made, a statement given to SQLite (a run of like ones is
one). No file of its own gets larger than BYTES, as on a disk that fills. With 0 for either it goes on to its end. Its
last line of output is how many changes there were, and how many seconds it took.
"""

from __future__ import annotations

import itertools
import os
import resource
import runpy
import signal
import sqlite3
import sys
import time
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink"}
# SQL statements that change nothing, and those of triggers.
READING = ("SELECT", "PRAGMA", "--")
# The first characters of a statement determine its kind.
KIND = 16


def main(folder: str, step: int, largest: int) -> None:
    """Run the module in `sys.argv`, and count its changes."""
    steps = itertools.count(1)
    done, last = 0, ""

    def count() -> None:
        nonlocal done
        done = next(steps)
        if done == step:
            os.killpg(0, signal.SIGKILL)

    def statement(text: str) -> None:
        nonlocal last
        kind = text.lstrip()[:KIND]
        if not kind.startswith(READING) and kind != last:
            last = kind
            count()

    def watch(event: str, values: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and values[2] & WRITING):
            path = values[0]
            # A file removed by a folder's handle has no path.
            if not isinstance(path, int) and (not os.path.isabs(path) or os.fsdecode(path).startswith(folder)):
                count()

    def connect(*given: Any, **named: Any) -> sqlite3.Connection:
        db = open_database(*given, **named)
        db.set_trace_callback(statement)
        return db

    open_database, sqlite3.connect = sqlite3.connect, connect
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    sys.addaudithook(watch)
    begun = time.monotonic()
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        print(done, time.monotonic() - begun)


if __name__ == "__main__":
    _, given_folder, given_step, given_bytes, *sys.argv = sys.argv
    main(given_folder, int(given_step), int(given_bytes))

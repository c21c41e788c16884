"""Near-duplicates of a served library, found in a low-priority background thread and cached.

Each minimum cosine has its own run. When the library changes, a run keeps its result but counts as outdated; a client
may then repeat it.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Collection
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from fastapi import HTTPException

from dolglab.errors import UserError
from dolglab.library.contents import Contents
from dolglab.library.duplicates import Duplicates, find_duplicates, rest_of
from dolglab.library.library import Library

# Cached or waiting runs, and attempts of a run that other processes disturb by changing the library.
RUNS, TRIES = 4, 3
# The niceness of the thread.
NICE = 10
Form = Literal["txt", "csv"]


@dataclass
class Run:
    """A search for duplicates with one minimum cosine.

    Attributes:
        contents: the contents of the library at the start.
        share: fraction of the comparisons done, 0 to 1.
        seconds: duration.
        found: the result; None until it has finished, or if it failed.
        error: the reason for a failure.
        done: set when it has finished.
    """

    contents: Contents
    share: float = 0.0
    seconds: float = 0.0
    found: Duplicates | None = None
    error: UserError | None = None
    done: threading.Event = field(default_factory=threading.Event)


class DuplicateSearch:
    """Finds near-duplicates of the library `served`, one run at a time, and caches the results."""

    def __init__(self, served: Library) -> None:
        self._served = served
        self._runs: dict[float, Run] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def run(self, least: float, again: bool = False) -> Run:
        """The run for a minimum cosine, started if there is none, if it failed, or with `again` if it is outdated.

        Raises HTTPException 503 if too many wait.
        """
        with self._lock:
            run = self._runs.get(least)
            if run is None or (run.done.is_set() and (run.error is not None or (again and self.outdated(run)))):
                self._make_room(least)
                run = self._runs[least] = Run(self._served.contents())
                # A daemon thread does not delay the exit of the server.
                threading.Thread(target=self._find, args=(run, least), name="duplicates", daemon=True).start()
            return run

    def outdated(self, run: Run) -> bool:
        """Whether photos were added or removed since a run started."""
        then, now = run.contents, self._served.contents()
        return then is not now and (then.segments != now.segments or not np.array_equal(then.dead, now.dead))

    def found(self, least: float) -> Duplicates:
        """The result for a minimum cosine. Raises HTTPException 409 if there is none yet."""
        run = self._runs.get(least)
        if run is None or run.found is None:
            raise HTTPException(409, f"no result yet for a minimum cosine of {least:g}: call /api/duplicates first")
        return run.found

    def rest(self, least: float, form: Form, keep: Collection[int], drop: Collection[int]) -> bytes:
        """The paths of the photos not to keep, see `rest_of`: one per line, or a CSV with their clusters.

        Raises HTTPException as `found` does.
        """
        rows = rest_of(self._served, self.found(least), set(keep), set(drop))
        if form == "txt":
            return b"".join(os.fsencode(photo.name) + b"\n" for _, photo in rows)
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(("cluster", "photo", "bytes"))
        writer.writerows((cluster, photo.name, photo.size) for cluster, photo in rows)
        return table.getvalue().encode(errors="surrogateescape")

    def _make_room(self, least: float) -> None:
        others = [key for key in self._runs if key != least]
        if len(others) < RUNS:
            return
        for key in others:
            if self._runs[key].done.is_set():
                del self._runs[key]
                return
        raise HTTPException(503, "too many searches for duplicates: try again later", {"Retry-After": "30"})

    def _find(self, run: Run, least: float) -> None:
        _give_way()
        with self._turn:
            start = time.monotonic()
            try:
                with closing(Library(self._served.folder)) as library:
                    run.found = self._undisturbed(run, library, least)
            except UserError as error:
                run.error = error
            except Exception:
                logging.getLogger("dolg.server").exception("finding duplicates")
                run.error = UserError("the search for duplicates failed: see the server's log")
            finally:
                run.seconds = time.monotonic() - start
                run.done.set()

    def _undisturbed(self, run: Run, library: Library, least: float) -> Duplicates:
        """Find duplicates without locking the library; start over if it changes meanwhile."""
        total = len(library.keys())

        def advance(count: int) -> None:
            run.share = min(1.0, run.share + count / total)

        for _ in range(TRIES - 1):
            run.share = 0.0
            with suppress(UserError):
                return find_duplicates(library, least, advance=advance)
        run.share = 0.0
        return find_duplicates(library, least, advance=advance)


def _give_way() -> None:
    """Lower the priority of this thread, on Linux only."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)

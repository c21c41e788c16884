"""Near-duplicates of a served library, found in a thread that gives way to searches, and kept.

Each cosine is a run of its own. A run's answer stays when the library changes; it is then said to be outdated, and a
client may have it found anew.
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

# Runs, of different cosines, that are kept or wait; and how often one is begun again that another process disturbs.
RUNS, TRIES = 4, 3
# What is added to the niceness of the thread.
NICE = 10
Form = Literal["txt", "csv"]


@dataclass
class Run:
    """What becomes of the search for duplicates with a cosine.

    Attributes:
        contents: what the library held when it began.
        share: of the comparisons that is done.
        seconds: that it took.
        found: what it found; None before it ends.
        error: why it found nothing.
        done: set at its end.
    """

    contents: Contents
    share: float = 0.0
    seconds: float = 0.0
    found: Duplicates | None = None
    error: UserError | None = None
    done: threading.Event = field(default_factory=threading.Event)


class DuplicateSearch:
    """Finds near-duplicates of the library that is `served`, one cosine after another, and keeps what it found."""

    def __init__(self, served: Library) -> None:
        self._served = served
        self._runs: dict[float, Run] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def run(self, least: float, again: bool = False) -> Run:
        """The run of a cosine, begun where there is none; with `again` also where it is outdated, or failed.

        Raises HTTPException 503 where too many wait.
        """
        with self._lock:
            run = self._runs.get(least)
            if run is None or (run.done.is_set() and (run.error is not None or (again and self.outdated(run)))):
                self._make_room(least)
                run = self._runs[least] = Run(self._served.contents())
                # The server's end does not wait for it.
                threading.Thread(target=self._find, args=(run, least), name="duplicates", daemon=True).start()
            return run

    def outdated(self, run: Run) -> bool:
        """Whether photos came or went since a run began."""
        then, now = run.contents, self._served.contents()
        return then is not now and (then.segments != now.segments or not np.array_equal(then.dead, now.dead))

    def found(self, least: float) -> Duplicates:
        """What the run of a cosine found. Raises HTTPException 409 before its end."""
        run = self._runs.get(least)
        if run is None or run.found is None:
            raise HTTPException(409, f"duplicates from a cosine of {least:g} on are not found yet: ask /api/duplicates")
        return run.found

    def rest(self, least: float, form: Form, keep: Collection[int], drop: Collection[int]) -> bytes:
        """The paths of photos that need not be kept, see `rest_of`: one a line, or a CSV with their clusters.

        Raises HTTPException as `found`.
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
        raise HTTPException(503, "too many searches for duplicates at once: try again later", {"Retry-After": "30"})

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
                run.error = UserError("duplicates could not be found: the server's log says why")
            finally:
                run.seconds = time.monotonic() - start
                run.done.set()

    def _undisturbed(self, run: Run, library: Library, least: float) -> Duplicates:
        """What is found while nobody changes the library, which nobody is kept from."""

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
    """Have this thread, of Linux alone, run when the others have nothing to do."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)

"""A step of the check while it runs: its deadline, figures and failures, and what was left out."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from experiments.gpu_check.recipe import Sizes

# The share of its time after which a step starts nothing new.
SOFT = 0.85
# Seconds that a process gets to end by itself.
LEAVING = 5.0
NEEDS_CUDA = "needs CUDA"


@dataclass
class Check:
    """A running step, in its own process.

    Attributes:
        deadline: by time.monotonic; afterwards it should start nothing new.
        rows: figures, a row for each comparison or measurement.
        facts: what applies to all rows.
        failures: failed requirements.
        left_out: what was skipped for lack of time.
        not_run: why the step has no result here, such as `NEEDS_CUDA`.
    """

    device: str
    sizes: Sizes
    deadline: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    not_run: str | None = None
    connection: Connection | None = None

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    def fits(self, what: str, seconds: float) -> bool:
        """Whether this many seconds are left; otherwise `what` is recorded as left out."""
        enough = self.seconds_left >= seconds
        if not enough:
            self.left_out.append(what)
        return enough

    def row(self, **figures: Any) -> None:
        """Record a row, which is kept whatever happens to the step afterwards."""
        self.rows.append(figures)
        self.send()

    def require(self, holds: bool, failure: str) -> None:
        """Record a failure unless `holds`."""
        if not holds:
            self.failures.append(failure)

    def send(self) -> None:
        """Send the results so far to the parent process."""
        if self.connection is not None:
            self.connection.send(self.result())

    def result(self) -> dict[str, Any]:
        """The step's part of results.json."""
        status = "failed" if self.failures else "not run" if self.not_run else "passed"
        reason = "; ".join(self.failures) or self.not_run
        return {"status": status, "reason": reason, "left_out": self.left_out, "facts": self.facts, "rows": self.rows}


def run_step(work: Callable[[Check], None], device: str, sizes: Sizes, seconds: float) -> dict[str, Any]:
    """A step's result, from a fork of this process, which is ended with its children after `seconds`.

    The fork has the imports of this process, which must not have used CUDA.
    """
    start = time.monotonic()
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    check = Check(device, sizes, start + SOFT * seconds, connection=sender)
    process = context.Process(target=_work, args=(work, check))
    process.start()
    sender.close()
    result, problem = check.result(), f"not finished after {seconds:.0f} s"
    try:
        while receiver.poll(max(0.0, start + seconds - time.monotonic())):
            if (said := receiver.recv()) is None:
                problem = ""
                break
            result = said
    except EOFError:
        process.join()
        problem = f"its process ended with {process.exitcode}"
    if not problem:
        process.join(LEAVING)
    # Its own children may still be running.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    if problem:
        result |= {"status": "failed", "reason": "; ".join(filter(None, (problem, result["reason"])))}
    return result | {"seconds": round(time.monotonic() - start, 1), "seconds_allowed": round(seconds)}


def _work(work: Callable[[Check], None], check: Check) -> None:
    """Run the step; an error becomes its reason in the report."""
    os.setsid()
    try:
        work(check)
    except Exception as error:
        # Only the first line, because some errors show whole batches.
        problem = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.300}"
        print(*traceback.format_tb(error.__traceback__), problem, sep="", file=sys.stderr)
        check.failures.append(problem)
    check.send()
    assert check.connection is not None
    check.connection.send(None)

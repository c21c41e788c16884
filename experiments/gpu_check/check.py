"""What a step of the check is given, and what it leaves: figures, failures, and what there was no time for."""

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

# The share of its time after which a step begins nothing new.
SOFT = 0.85
# Seconds that a process has to end by itself.
LEAVING = 5.0
NEEDS_CUDA = "needs CUDA"


@dataclass
class Check:
    """One step while it runs, in a process of its own.

    Attributes:
        deadline: of time.monotonic, after which it should begin nothing new.
        rows: figures, a row for each thing that was compared or measured.
        facts: what holds for all of them.
        failures: what is not as it should be.
        left_out: what there was no time for.
        not_run: why the step counts for nothing here, such as `NEEDS_CUDA`.
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
        """Whether there are so many seconds; where not, `what` is noted as left out."""
        enough = self.seconds_left >= seconds
        if not enough:
            self.left_out.append(what)
        return enough

    def row(self, **figures: Any) -> None:
        """Note a row, which stays whatever happens to the step afterwards."""
        self.rows.append(figures)
        self.send()

    def require(self, holds: bool, failure: str) -> None:
        """Note a failure unless `holds`."""
        if not holds:
            self.failures.append(failure)

    def send(self) -> None:
        """Hand what there is so far to the parent process."""
        if self.connection is not None:
            self.connection.send(self.result())

    def result(self) -> dict[str, Any]:
        """The step's part of results.json."""
        status = "failed" if self.failures else "not run" if self.not_run else "passed"
        reason = "; ".join(self.failures) or self.not_run
        return {"status": status, "reason": reason, "left_out": self.left_out, "facts": self.facts, "rows": self.rows}


def run_step(work: Callable[[Check], None], device: str, sizes: Sizes, seconds: float) -> dict[str, Any]:
    """A step's result, from a fork of this process, which is ended with all that it started after `seconds`.

    A fork has what is imported here; this process itself must not have used CUDA.
    """
    start = time.monotonic()
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    check = Check(device, sizes, start + SOFT * seconds, connection=sender)
    process = context.Process(target=_work, args=(work, check))
    process.start()
    sender.close()
    result, problem = check.result(), f"not done after {seconds:.0f} s"
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
    # What it started itself may still be there.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    if problem:
        result |= {"status": "failed", "reason": "; ".join(filter(None, (problem, result["reason"])))}
    return result | {"seconds": round(time.monotonic() - start, 1), "seconds_allowed": round(seconds)}


def _work(work: Callable[[Check], None], check: Check) -> None:
    """Do the step: whatever stops it is what the report says of it."""
    os.setsid()
    try:
        work(check)
    except Exception as error:
        # Of an error that shows whole batches, the first line.
        problem = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.300}"
        print(*traceback.format_tb(error.__traceback__), problem, sep="", file=sys.stderr)
        check.failures.append(problem)
    check.send()
    assert check.connection is not None
    check.connection.send(None)

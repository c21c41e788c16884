"""How a sweep's jobs are started: each a process of its own, new or forked from one that has imported what it needs."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from types import TracebackType
from typing import IO, Protocol

# What an evaluation imports from the first line on: on a shared core 5 s, more than a small benchmark takes.
IMPORTED = ("dolglab.commands.build_evaluation", "dolglab.evaluation.evaluator", "dolglab.results.report", "timm")


class Running(Protocol):
    """A process that was started, whose stderr is read; what `subprocess.Popen` has of it."""

    stderr: IO[str] | None

    @property
    def returncode(self) -> int | None:
        """What it ended with, negative for a signal; None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> object:
        """Until it has ended. Raises subprocess.TimeoutExpired."""
        ...

    def terminate(self) -> None:
        """Tell it to stop."""
        ...

    def __enter__(self) -> Running: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


# Starts a command with further arguments in an environment.
Start = Callable[[Sequence[str], Mapping[str, str]], Running]


class WarmJob:
    """`python -m MODULE ARGUMENTS...`, forked from a process that has imported `IMPORTED`: a `Running`.

    The first job of this process starts that one, which ends with this process, and is the parent of the jobs.
    """

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        reader, writer = context.Pipe(duplex=False)
        job = (module, list(arguments), dict(environment), writer)
        self._process = context.Process(target=_run_module, args=job)
        with _ignoring_interrupts():
            forkserver.ensure_running()
        # In a worker of joblib's the method is joblib's own, which the new process would look for.
        usual = multiprocessing.get_start_method(allow_none=True)
        multiprocessing.set_start_method("forkserver", force=True)
        self._process.start()
        multiprocessing.set_start_method(usual, force=True)
        # It ends with the last process that writes to it.
        writer.close()
        self.stderr: IO[str] | None = os.fdopen(os.dup(reader.fileno()), errors="replace")
        reader.close()

    @property
    def returncode(self) -> int | None:
        """See `Running`."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        """See `Running`."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)

    def terminate(self) -> None:
        """See `Running`."""
        self._process.terminate()

    def __enter__(self) -> WarmJob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._process.join()
        assert self.stderr is not None
        self.stderr.close()


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """What is started meanwhile ignores Ctrl-C; in a launcher's thread nothing can be done about it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run_module(module: str, arguments: Sequence[str], environment: Mapping[str, str], errors: Connection) -> None:
    """In the new process: what `python -m` does."""
    # As in a process that was not forked: what a job starts itself is started as on this system it is.
    multiprocessing.set_start_method(None, force=True)
    os.dup2(errors.fileno(), sys.stderr.fileno())
    errors.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def fresh(command: Sequence[str]) -> Start:
    """Starts `command` in a process that has imported nothing yet."""

    def start(arguments: Sequence[str], environment: Mapping[str, str]) -> Running:
        return subprocess.Popen([*command, *arguments], env=dict(environment), stderr=subprocess.PIPE, text=True)

    return start


def module(name: str) -> Start:
    """Starts `python -m NAME` anew."""
    return fresh((sys.executable, "-m", name))


# A training takes long enough; a suite has many short evaluations. macOS's own libraries do not bear to be forked.
TRAIN = module("dolglab.commands.train")
_EVALUATE = "dolglab.commands.evaluate"
EVALUATE: Start = partial(WarmJob, _EVALUATE) if sys.platform == "linux" else module(_EVALUATE)

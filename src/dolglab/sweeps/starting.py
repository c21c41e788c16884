"""Start the jobs of a sweep: each has its own process, new or forked from one with the needed imports."""

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

# Imports of an evaluation: 5 s on a shared core, longer than a small benchmark.
IMPORTED = ("dolglab.commands.build_evaluation", "dolglab.evaluation.evaluator", "dolglab.results.report", "timm")


class Running(Protocol):
    """A started process whose stderr is read; the part of `subprocess.Popen` that is used."""

    stderr: IO[str] | None

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> object:
        """Wait until it has ended. Raises subprocess.TimeoutExpired."""
        ...

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM)."""
        ...

    def __enter__(self) -> Running: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


# Starts a command with further arguments in an environment.
Start = Callable[[Sequence[str], Mapping[str, str]], Running]


class WarmJob:
    """`python -m MODULE ARGUMENTS...`, forked from a server process that has imported `IMPORTED`: a `Running`.

    The first job starts the server, which is the parent of all jobs and ends with this process.
    """

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        reader, writer = context.Pipe(duplex=False)
        job = (module, list(arguments), dict(environment), writer)
        self._process = context.Process(target=_run_module, args=job)
        with _ignoring_interrupts():
            forkserver.ensure_running()
        # In a worker of joblib, the start method is joblib's own, which the new process would look for.
        usual = multiprocessing.get_start_method(allow_none=True)
        multiprocessing.set_start_method("forkserver", force=True)
        try:
            self._process.start()
        finally:
            multiprocessing.set_start_method(usual, force=True)
        # The pipe ends when the last process that writes to it has ended.
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
    """Processes started in this context ignore Ctrl-C; in a launcher's thread it has no effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run_module(module: str, arguments: Sequence[str], environment: Mapping[str, str], errors: Connection) -> None:
    """Run a module like `python -m`, in the new process."""
    # As in a process that was not forked: the job's own processes use the system's start method.
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
    """Starts `command` in a new process."""

    def start(arguments: Sequence[str], environment: Mapping[str, str]) -> Running:
        return subprocess.Popen([*command, *arguments], env=dict(environment), stderr=subprocess.PIPE, text=True)

    return start


def module(name: str) -> Start:
    """Starts `python -m NAME` in a new process."""
    return fresh((sys.executable, "-m", name))


# Only evaluations are forked: a suite has many short ones. Forking is not safe with the system libraries of macOS.
TRAIN = module("dolglab.commands.train")
_EVALUATE = "dolglab.commands.evaluate"
EVALUATE: Start = partial(WarmJob, _EVALUATE) if sys.platform == "linux" else module(_EVALUATE)

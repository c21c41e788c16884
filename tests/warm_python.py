"""Processes forked from one that has imported the large packages, which takes most of a short command's time.

Only packages of others are imported beforehand: a process runs the code of the folder it is started in.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lightning", "timm", "torch._dynamo", "matplotlib.figure", "hydra"])


class WarmPython:
    """`python -W ignore ARGUMENTS...` in its own session, with the interface of `subprocess.Popen`.

    Args:
        arguments: "-m", a module and its arguments; or "-c", a program and its arguments.
        cwd: the folder it is started in.
        env: what its environment has beside this process's own and one thread.
    """

    def __init__(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.arguments = list(arguments)
        self._streams = [Path(tempfile.mkstemp()[1]) for _ in range(2)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **env}
        self._process = CONTEXT.Process(target=_start, args=(self.arguments, cwd, environment, self._streams))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.arguments, timeout or 0.0)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """The output of it and its children, once they have ended. Raises subprocess.TimeoutExpired."""
        end = time.monotonic() + timeout
        self.wait(timeout)
        while self._signal_all(0):
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.arguments, timeout)
            time.sleep(0.02)
        out, err = (path.read_text() for path in self._streams)
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal to this process only."""
        os.kill(self.pid, number)

    def close(self) -> None:
        """End it and its children."""
        self._signal_all(signal.SIGKILL)
        self._process.join()
        for path in self._streams:
            path.unlink()

    def _signal_all(self, number: int) -> bool:
        """Signal all processes of the session; returns whether there are any."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
            return True
        return False


@contextlib.contextmanager
def started(arguments: Sequence[str], cwd: Path = ROOT, **env: str) -> Iterator[WarmPython]:
    """A running process; it and its children are ended afterwards in any case."""
    process = WarmPython(arguments, cwd, env)
    try:
        yield process
    finally:
        process.close()


def run_python(
    arguments: Sequence[str], cwd: Path = ROOT, timeout: float = 240, **env: str
) -> subprocess.CompletedProcess[str]:
    """The result of a process as from `subprocess.run`. Raises subprocess.TimeoutExpired."""
    with started(arguments, cwd, **env) as process:
        out, err = process.communicate(timeout)
        return subprocess.CompletedProcess(arguments, process.poll() or 0, out, err)


def run_ranks(program: str, *arguments: str) -> list[str]:
    """The output of two processes whose first argument is their rank; both must succeed."""
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(started(["-c", program, str(rank), *arguments])) for rank in range(2)]
        said = [process.communicate(120) for process in both]
        assert [process.poll() for process in both] == [0, 0], said
    return [out for out, _ in said]


def _start(arguments: list[str], cwd: Path, env: dict[str, str], streams: Sequence[Path]) -> None:
    """Run `python -W ignore` in the new process."""
    import torch

    multiprocessing.set_start_method(None, force=True)  # a fresh process's own, not the one that made this one
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
    os.setsid()
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    warnings.simplefilter("ignore")
    # timm imports W&B, whose temporary folder the first fork to end would remove: each fork gets its own.
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        del sys.modules[name]
    sys.path[:0] = [str(cwd), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    kind, program, *rest = arguments
    try:
        if kind == "-m":
            sys.argv = [program, *rest]
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            sys.argv = ["-c", *rest]
            exec(program, {"__name__": "__main__"})
    finally:
        # Like an interpreter at exit; multiprocessing would wait for children first.
        threading._shutdown()
        atexit._run_exitfuncs()

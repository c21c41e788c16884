"""Calls in separate processes: results, errors, and slow calls that do not block others."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from queue import Full

import pytest

from dolglab.server.isolation import IsolatedExecutor
from warm_python import started

pytestmark = pytest.mark.process

# More seconds and bytes than any call here needs.
PATIENCE, PLENTY = 60.0, 1 << 33


def test_results_and_errors_of_calls_are_returned() -> None:
    executor = IsolatedExecutor(PLENTY, PATIENCE, PATIENCE)
    assert executor(divmod, 7, 2) == (3, 1)
    process = executor(os.getpid)
    assert process != os.getpid()
    with pytest.raises(ZeroDivisionError):
        executor(divmod, 7, 0)
    assert executor(os.getpid) == process


def test_a_call_that_takes_too_long_is_ended() -> None:
    executor = IsolatedExecutor(PLENTY, 0.05, 0.1)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            executor(time.sleep, PATIENCE)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_a_call_that_needs_too_much_memory_fails() -> None:
    executor = IsolatedExecutor(50_000_000, PATIENCE, PATIENCE)
    with pytest.raises(MemoryError):
        executor(bytearray, 100_000_000)
    assert executor(len, bytes(10_000_000)) == 10_000_000


def test_a_process_that_ends_is_replaced() -> None:
    executor = IsolatedExecutor(PLENTY, PATIENCE, PATIENCE)
    with pytest.raises(BrokenProcessPool):
        executor(os._exit, 3)
    os.kill(process := executor(os.getpid), signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    assert executor(abs, -1) == 1


def test_slow_calls_run_beside_others_up_to_a_limit(tmp_path: Path) -> None:
    executor = IsolatedExecutor(PLENTY, 0.01, PATIENCE, workers=1, slow=1)
    # Reading it blocks until something is written.
    os.mkfifo(pipe := tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(executor, Path.read_text, pipe)
        while (writer := writer_of(pipe)) is None:
            pass
        with open(writer, "w") as file:
            with pytest.raises(Full):
                executor(time.sleep, PATIENCE)
            file.write("done")
        assert slow.result(PATIENCE) == "done"


def writer_of(pipe: Path) -> int | None:
    """A file descriptor for writing to a pipe; None until there is a reader."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_processes_end_with_their_parent() -> None:
    program = (
        "import os, signal, time\n"
        "from dolglab.server.isolation import IsolatedExecutor\n"
        f"print(IsolatedExecutor({PLENTY}, {PATIENCE}, {PATIENCE})(os.getpid), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with started(["-c", program]) as parent:
        # Waits for all threads.
        out, _ = parent.communicate(PATIENCE)
    with pytest.raises(ProcessLookupError):
        os.kill(int(out), 0)

"""Calls in processes that can be killed, because an untrusted file may make a decoder take too much time or memory.

Every such process imports this module, so it must not import anything large.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Full
from typing import Any, ParamSpec, TypeVar

from dolglab.concurrency import exit_with_parent

P = ParamSpec("P")
T = TypeVar("T")

CONTEXT = get_context("spawn")
# Added to the niceness of a slow call's process, so that the quick calls of others come first.
NICENESS = 10


class IsolatedExecutor:
    """Runs module-level functions in a few processes, which are started on demand.

    A call that is not done after `quick` seconds continues in the background while another process takes the next call,
    so slow calls do not block quick ones. In a process pool such as Pebble's, a slow call would occupy its worker until
    its timeout.

    Args:
        memory: additional bytes that a call may allocate (Linux only).
        quick: seconds after which a call counts as slow.
        seconds: after which a call is killed.
        workers: maximum quick calls at the same time; others wait.
        slow: maximum slow calls at the same time; any further one is killed.
        preload: modules that a process imports before its first call; they do not count towards its limits.
    """

    def __init__(
        self, memory: int, quick: float, seconds: float, workers: int = 2, slow: int = 2, preload: Sequence[str] = ()
    ) -> None:
        self._memory = memory
        self._preload = preload
        self._quick = min(quick, seconds)
        self._seconds = seconds
        self._turns = threading.Semaphore(workers)
        self._slow = threading.Semaphore(slow)
        self._idle = deque[_Process]()

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` and return its result.

        Raises its exceptions, without their causes; MemoryError and TimeoutError at the limits; BrokenProcessPool if
        the process crashed; and queue.Full if the call is slow and too many others are as well.
        """
        with ExitStack() as stack:
            with self._turns:
                process = self._idle_process(work)
                stack.callback(process.end)
                process.send(work, args, kwargs)
                if process.wait(self._quick):
                    value, error = process.receive()
                    stack.pop_all()
                    self._idle.append(process)
                    return _outcome(value, error)
                if not self._slow.acquire(blocking=False):
                    raise Full
                stack.callback(self._slow.release)
            process.lower_priority()
            end = time.monotonic() + self._seconds - self._quick
            # The slow call, not the next one, waits for the replacement process to start.
            self._idle.appendleft(_Process(self._memory, work, self._preload))
            left = end - time.monotonic()
            if left <= 0 or not process.wait(left):
                raise TimeoutError(f"it took longer than {self._seconds:g} s")
            return _outcome(*process.receive())

    def _idle_process(self, work: Callable[..., Any]) -> _Process:
        while self._idle:
            # The most recently used one: the memory of others may be swapped out.
            if (process := self._idle.pop()).alive:
                return process
        return _Process(self._memory, work, self._preload)


def _outcome(value: Any, error: Exception | None) -> Any:
    if error is not None:
        raise error
    return value


class _Process:
    """A worker process; methods raise BrokenProcessPool if it has ended."""

    def __init__(self, memory: int, work: Callable[..., Any], preload: Sequence[str]) -> None:
        self._connection, theirs = CONTEXT.Pipe()
        # Unpickling the function imports its module before the process reports that it is ready.
        self._process = CONTEXT.Process(target=_serve, args=(theirs, memory, work, preload), daemon=True)
        self._process.start()
        theirs.close()
        self.receive()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def send(self, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._connection.send((work, args, kwargs))
        except OSError:
            raise BrokenProcessPool from None

    def wait(self, seconds: float) -> bool:
        """Whether a message arrives within `seconds`."""
        return self._connection.poll(seconds)

    def receive(self) -> tuple[Any, Exception | None]:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            raise BrokenProcessPool from None

    def lower_priority(self) -> None:
        # The process may just have ended.
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid or 0, NICENESS)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, memory: int, work: Callable[..., Any], preload: Sequence[str]) -> None:
    """The loop of the process: answer calls with (value, None) or (None, error)."""
    for module in preload:
        importlib.import_module(module)
    # Ctrl-C reaches all processes of a terminal; the parent alone handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, daemon=True).start()
    # These errors mean that the parent has exited or closed the connection.
    with suppress(EOFError, BrokenPipeError):
        connection.send((None, None))
        while True:
            work, args, kwargs = connection.recv()
            connection.send(_answer(memory, work, args, kwargs))


def _answer(
    memory: int, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Exception | None]:
    try:
        with _limited_memory(memory):
            return work(*args, **kwargs), None
    except Exception as error:
        return None, MemoryError() if _is_of_memory(error) else error


@contextmanager
def _limited_memory(further: int) -> Iterator[None]:
    """Limit further allocations of this process to so many bytes, on Linux."""
    if sys.platform != "linux":
        yield
        return
    # The sixth number, pages of data, is what RLIMIT_DATA counts. It excludes reserved address space, of which every
    # thread takes much.
    taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    usual, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = taken + further
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if usual == resource.RLIM_INFINITY else min(wanted, usual), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (usual, hard))


def _is_of_memory(error: BaseException | None) -> bool:
    """Whether a MemoryError is among the causes of an error."""
    return error is not None and (isinstance(error, MemoryError) or _is_of_memory(error.__cause__))
